"""When a round closes and what comes out of it: pure, without Spark, Kafka, clock or threads."""
