"""Optimizers and learning rates of the recipes, for every backend of Keras."""

from training.optimization.iterations import (
    LinearWarmup,
    Polynomial,
    make_dense_schedule,
)
from training.optimization.optimizers import SGD, AdamW, Lamb, decays, make_optimizer
from training.optimization.schedules import WarmupCosine, make_schedule

__all__ = [
    "SGD",
    "AdamW",
    "Lamb",
    "LinearWarmup",
    "Polynomial",
    "WarmupCosine",
    "decays",
    "make_dense_schedule",
    "make_optimizer",
    "make_schedule",
]
