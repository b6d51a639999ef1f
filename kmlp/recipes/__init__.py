"""Recipes as data: the papers' settings, changed by field, resolved for a run."""

from kmlp.recipes.choosing import (
    FINETUNE,
    LARGEST_SMALL,
    SMALL,
    data_for,
    list_recipes,
    recipe_for,
    table,
)
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.dense_choosing import dense_recipe_for, dense_recipes
from kmlp.recipes.dense_recipe import DenseRecipe
from kmlp.recipes.dense_reported import REPORTED, Reported, dense_table
from kmlp.recipes.fit import FitRecipe, get
from kmlp.recipes.recipe import Recipe, override
from kmlp.recipes.wording import describe, from_json, to_json

__all__ = [
    "FINETUNE",
    "LARGEST_SMALL",
    "REPORTED",
    "SMALL",
    "ClassificationRecipe",
    "DenseRecipe",
    "FitRecipe",
    "Recipe",
    "Reported",
    "data_for",
    "dense_recipe_for",
    "dense_recipes",
    "dense_table",
    "describe",
    "from_json",
    "get",
    "list_recipes",
    "override",
    "recipe_for",
    "table",
    "to_json",
]
