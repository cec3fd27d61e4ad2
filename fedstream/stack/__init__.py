"""Is the stack up, and does data move? The standard library is enough."""
