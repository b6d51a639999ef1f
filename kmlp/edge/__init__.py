"""From a checkpoint to TFLite files that were run before they were published.

TensorFlow throughout, as in `kmlp.export`.
"""
