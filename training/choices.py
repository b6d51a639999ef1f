"""What the command line chooses: the data and the recipe."""

import dataclasses

from training.recipes import (
    FINETUNE,
    LARGEST_SMALL,
    data_for,
    override,
    recipe_for,
    with_epochs,
)

SMALL = "small_images"


def chosen_data(options):
    """The data as they are named; `None`: the embedded digits.

    Raises:
        Stop: a fine-tuning recipe for images that have to be named.
    """
    if options.data is None:
        return data_for(options.recipe)
    return None if options.data == "digits" else options.data


def chosen_recipe(options, source=None, begun=None):
    """The recipe with what the command line changes, and as it was before.

    Args:
        source: of the images, once they are known.
        begun: the network with the weights that training begins with, once loaded.
    """
    pretrained = options.weights is not None
    base = recipe_for(
        options.arch,
        name=options.recipe,
        embedded=options.data is None,
        small_images=source is not None and source.small,
        pretrained=pretrained,
        data=options.data,
    )
    if pretrained:
        # A recipe's arguments are for fresh networks.
        base = dataclasses.replace(base, model={})
    if begun is not None and base.name == FINETUNE:
        size = begun.inputs[0].shape[1] or base.image_size
        base = dataclasses.replace(base, image_size=size)
    recipe = base
    if options.epochs is not None:
        recipe = with_epochs(recipe, options.epochs)
    flags = {
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "image_size": options.image_size,
        "teacher": options.teacher,
    }
    changes = [f"{name}={value}" for name, value in flags.items() if value is not None]
    if options.teacher and recipe.distillation == "none":
        changes.append("distillation=hard")
    changes += [change for group in options.set for change in group]
    recipe = override(recipe, changes)
    if recipe.name == SMALL and recipe.image_size > LARGEST_SMALL:
        # Patches for small images would make many thousand tokens of large ones.
        own = {k: v for k, v in recipe.model.items() if base.model.get(k) != v}
        recipe = dataclasses.replace(recipe, model=own)
    if begun is not None and recipe.drop_path is None:
        recipe = dataclasses.replace(recipe, drop_path=begun.drop_path_rate)
    return recipe, base
