"""Data files as people have them: what is found out about one, its rows, and what a row means as a reading."""
