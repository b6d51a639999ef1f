"""Choose the recipe of a detector or segmenter by the command line."""

import argparse

from kmlp.data.dense import kind_and_folder
from kmlp.recipes.dense_choosing import dense_recipe_for
from kmlp.recipes.dense_recipe import DenseRecipe
from kmlp.training.choices import overridden


def chosen_recipe(options: argparse.Namespace) -> tuple[DenseRecipe, DenseRecipe]:
    """Return the recipe with what the command line changes, and as it was before.

    Raises:
        InputError: If a name or field is unknown, or a value does not fit.
    """
    if options.data not in (None, "scenes"):
        kind_and_folder(options.data, options.task)
    base = dense_recipe_for(
        options.arch,
        options.task,
        name=options.recipe,
        head=options.head,
        data=options.data,
    )
    size = options.image_size and "{},{}".format(*options.image_size)
    return overridden(base, options, {"image_size": size}), base
