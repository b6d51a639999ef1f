"""Recipes as data: the papers' settings, changed by field, resolved for a run."""

from training.recipes.catalogue import (
    FINETUNE,
    LARGEST_SMALL,
    SMALL,
    data_for,
    list_recipes,
    recipe_for,
    table,
)
from training.recipes.description import describe, from_json, to_json
from training.recipes.overrides import override
from training.recipes.recipe import Recipe
from training.recipes.resolution import resolve, scaled_rates, with_epochs

__all__ = [
    "FINETUNE",
    "LARGEST_SMALL",
    "SMALL",
    "Recipe",
    "data_for",
    "describe",
    "from_json",
    "list_recipes",
    "override",
    "recipe_for",
    "resolve",
    "scaled_rates",
    "table",
    "to_json",
    "with_epochs",
]
