"""Spark: session, sources, state of a job, training, real-time expressions, scoring."""
