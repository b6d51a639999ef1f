"""Training: runs from options to a published version, on every backend of Keras."""
