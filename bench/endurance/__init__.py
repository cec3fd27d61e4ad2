"""A long steady load (`make soak`), and what more nodes, partitions, readings and parameters cost (`make growth`)."""
