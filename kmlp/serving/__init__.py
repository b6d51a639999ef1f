"""Serving: what TensorFlow Serving does with an artifact, here and at a real one."""
