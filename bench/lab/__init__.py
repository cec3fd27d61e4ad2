"""The laboratory: a stack of its own, loads, a view of the topics and processes, and the maths of the measures."""
