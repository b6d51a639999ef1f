"""The batches that a model trains on.

What reads files takes TensorFlow; images in memory (`arrays`, `array_batches`) need
none.
"""
