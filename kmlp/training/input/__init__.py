"""The batches that a model trains on."""

from kmlp.training.input.in_memory import load
from kmlp.training.input.order import steps_per_epoch
from kmlp.training.input.pipeline import training_batches

__all__ = ["load", "steps_per_epoch", "training_batches"]
