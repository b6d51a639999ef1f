"""Training of detectors and segmenters."""
