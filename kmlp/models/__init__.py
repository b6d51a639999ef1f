"""The families, their variants and the ablations of their papers, by name.

The classes of the families are imported when they are used: listing names does not
import Keras.
"""

from typing import Any

from kmlp.models.papers import list_ablations
from kmlp.models.registry import create_model, family_class, list_models
from kmlp.models.variants import FAMILIES

__all__ = [*sorted(FAMILIES), "create_model", "list_ablations", "list_models"]


def __getattr__(name: str) -> Any:
    if name in FAMILIES:
        return family_class(name)
    raise AttributeError(f"module 'kmlp.models' has no attribute {name!r}")
