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
from kmlp.recipes.dense_reported import REPORTED, Reported
from kmlp.recipes.dense_table import dense_table
from kmlp.recipes.fields import override
from kmlp.recipes.fit import FitRecipe, get
from kmlp.recipes.recipe import Recipe
from kmlp.recipes.wording import (
    describe,
    from_json,
    resolve,
    scaled_rates,
    to_json,
    with_epochs,
)

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
    "resolve",
    "scaled_rates",
    "table",
    "to_json",
    "with_epochs",
]
