"""Checkpoint files as plain arrays, whatever their form."""

from kmlp.weights.readers.checkpoint_forms import form_of, read_checkpoint, read_state

__all__ = ["form_of", "read_checkpoint", "read_state"]
