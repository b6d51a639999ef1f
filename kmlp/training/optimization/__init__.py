"""Optimizers and learning rates of the recipes, for every backend of Keras."""

from kmlp.training.optimization.optimizers import (
    SGD,
    AdamW,
    Lamb,
    decays,
    make_optimizer,
)
from kmlp.training.optimization.schedules import (
    LinearWarmup,
    Polynomial,
    WarmupCosine,
    make_dense_schedule,
    make_schedule,
)

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
