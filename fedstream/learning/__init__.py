"""What a node learns: arrays, models, training, scores. numpy and scikit-learn only."""
