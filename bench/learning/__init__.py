"""How well the federation learns: simulated in one process, and on a real stack (`make federated`)."""
