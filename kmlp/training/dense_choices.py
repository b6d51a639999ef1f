"""What the command line of a detector or segmenter chooses."""

from kmlp.data.dense.dense_sources import kind_and_folder
from kmlp.recipes.dense_choosing import dense_recipe_for
from kmlp.recipes.fields import override


def chosen_recipe(options):
    """The recipe with what the command line changes, and as it was before.

    Raises:
        InputError: an unknown name or field, or a value that does not fit.
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
    recipe = base
    if options.epochs is not None:
        recipe = recipe.shortened(options.epochs)
    flags = {
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "image_size": options.image_size and "{},{}".format(*options.image_size),
    }
    changes = [f"{name}={value}" for name, value in flags.items() if value is not None]
    changes += [change for group in options.set for change in group]
    return override(recipe, changes), base
