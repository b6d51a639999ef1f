"""Networks written in PyTorch that the Keras ones are checked and timed against."""
