"""What is on the topics: names, readings, weights, rounds."""
