"""The board: what happens on the stack now, as a web page, as JSON and for Prometheus."""
