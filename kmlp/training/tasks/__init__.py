"""The tasks of a run: data, network, loss, score and pictures."""
