"""Optimizers and learning rates of the recipes, for every backend of Keras."""

from training.optimization.optimizers import AdamW, Lamb, decays, make_optimizer
from training.optimization.schedules import WarmupCosine, make_schedule

__all__ = [
    "AdamW",
    "Lamb",
    "WarmupCosine",
    "decays",
    "make_optimizer",
    "make_schedule",
]
