"""Optimizers and learning rates of the recipes, for every backend of Keras."""

from kmlp.training.optimization.iterations import (
    LinearWarmup,
    Polynomial,
    make_dense_schedule,
)
from kmlp.training.optimization.optimizers import (
    SGD,
    AdamW,
    Lamb,
    decays,
    make_optimizer,
)
from kmlp.training.optimization.schedules import WarmupCosine, make_schedule

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
