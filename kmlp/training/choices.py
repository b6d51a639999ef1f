"""Choose the data and the recipe by the command line."""

import argparse
import dataclasses
import itertools
from typing import Any, TypeVar

from kmlp.recipes.choosing import FINETUNE, LARGEST_SMALL, SMALL, data_for, recipe_for
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.recipe import Recipe, override

R = TypeVar("R", bound=Recipe)


def chosen_data(options: argparse.Namespace) -> str | None:
    """Return the data as they are named; `None`: the embedded digits.

    Raises:
        InputError: If a fine-tuning recipe is for images that have to be named.
    """
    if options.data is None:
        return data_for(options.recipe)
    return None if options.data == "digits" else options.data


def chosen_recipe(
    options: argparse.Namespace, source: Any = None, begun: Any = None
) -> tuple[ClassificationRecipe, ClassificationRecipe]:
    """Return the recipe with what the command line changes, and as it was before.

    Args:
        options: Options of the command.
        source: Source of the images, once they are known.
        begun: Network with the weights that training begins with, once loaded.
    """
    pretrained = options.weights is not None
    own = None if begun is None else _own_size(begun)
    seen = options.image_size or own
    small = source is not None and source.small
    if pretrained:
        # Weights have a size of images, whatever the data's. Until it is known the
        # recipe counts whose fields contradict nothing.
        small = begun is None or (seen is not None and seen <= LARGEST_SMALL)
    base = recipe_for(
        options.arch,
        name=options.recipe,
        embedded=options.data is None,
        small_images=small,
        pretrained=pretrained,
        data=options.data,
    )
    if pretrained:
        # A recipe's arguments are for fresh networks.
        base = dataclasses.replace(base, model={})
    if own is not None and base.name in (FINETUNE, SMALL):
        base = dataclasses.replace(base, image_size=own)
    flags = {"image_size": options.image_size, "teacher": options.teacher}
    if options.teacher and base.distillation == "none":
        flags["distillation"] = "hard"
    recipe = overridden(base, options, flags)
    if recipe.name == SMALL and recipe.image_size > LARGEST_SMALL:
        # Patches for small images would make many thousand tokens of large ones.
        own = {k: v for k, v in recipe.model.items() if base.model.get(k) != v}
        recipe = dataclasses.replace(recipe, model=own)
    if begun is not None and recipe.drop_path is None:
        recipe = dataclasses.replace(recipe, drop_path=begun.drop_path_rate)
    return recipe, base


def overridden(recipe: R, options: argparse.Namespace, flags: dict[str, Any]) -> R:
    """Return the recipe with what `--epochs`, flags and then `--set` change.

    Args:
        recipe: Recipe of any task.
        options: Options of the command.
        flags: Values `{field: value}` of the task's own flags; `None` leaves a field as
            it is.
    """
    changed: Any = recipe
    if options.epochs is not None:
        changed = recipe.shortened(options.epochs)
    flags = {
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        **flags,
    }
    changes = [f"{name}={value}" for name, value in flags.items() if value is not None]
    return override(changed, [*changes, *itertools.chain.from_iterable(options.set)])


def _own_size(model):
    """Return the size of the images that weights were trained on, if known."""
    known = model.preprocessing
    return model.inputs[0].shape[1] or (known and known.image_size)
