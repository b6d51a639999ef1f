"""What a run trains for: its data, network, loss, score and pictures."""
