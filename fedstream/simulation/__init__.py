"""The same rounds in one process: data, partitions, scenarios."""
