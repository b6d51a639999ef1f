"""The published checkpoints: a table, and what is looked up in it."""

from kmlp.weights.catalogue.lookup import (
    DEFAULT,
    list_unpublished,
    list_weights,
    published_weights,
)
from kmlp.weights.catalogue.publications import WEIGHTS, PublishedWeights

__all__ = [
    "DEFAULT",
    "WEIGHTS",
    "PublishedWeights",
    "list_unpublished",
    "list_weights",
    "published_weights",
]
