"""Kafka: clients, options, topics, positions."""
