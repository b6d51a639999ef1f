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
from training.recipes.dense import DenseRecipe
from training.recipes.dense_catalogue import dense_recipe_for, dense_recipes
from training.recipes.dense_table import dense_table
from training.recipes.description import describe, from_json, to_json
from training.recipes.overrides import override
from training.recipes.recipe import Recipe
from training.recipes.reported import REPORTED, Reported
from training.recipes.resolution import resolve, scaled_rates, with_epochs

__all__ = [
    "FINETUNE",
    "LARGEST_SMALL",
    "REPORTED",
    "SMALL",
    "DenseRecipe",
    "Recipe",
    "Reported",
    "data_for",
    "dense_recipe_for",
    "dense_recipes",
    "dense_table",
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
