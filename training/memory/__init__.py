"""Images held in memory, prepared by NumPy: what every backend trains on alike."""
