"""The batches that a model trains on."""

from training.data.loading import load
from training.data.order import steps_per_epoch
from training.data.pipeline import training_batches

__all__ = ["load", "steps_per_epoch", "training_batches"]
