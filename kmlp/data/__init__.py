"""Images by name or folder, and the batches that a model is tested on."""
