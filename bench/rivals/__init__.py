"""The jobs of this stack beside other programs that do the same work: `make bench`."""
