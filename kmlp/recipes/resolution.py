"""What of a recipe follows from the data, the length and the batch of a run."""

import dataclasses

from kmlp.errors import InputError

# Recipes that leave `epochs` open train for as many as show `images_shown` images.
FEWEST_EPOCHS, MOST_EPOCHS = 5, 20
# Share of the epochs in which the rate warms up where `warmup_epochs` is open.
WARMUP_SHARE = 0.1


def resolve(recipe, *, images, flip=True, mean=None, std=None):
    """The recipe for a data set, with nothing left open that decides training.

    Args:
        images: number of training images.
        flip: whether a mirrored image is as good an example.
        mean, std: the data's own statistics, for recipes that have none.

    Raises:
        InputError: a recipe without epochs, or a teacher or distillation that lacks the
            other.
    """
    epochs = recipe.epochs
    if epochs is None:
        if recipe.images_shown is None:
            raise InputError(f"{recipe.name} leaves the epochs open: set epochs.")
        shows = round(recipe.images_shown / images)
        epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, shows))
    if recipe.distillation != "none" and recipe.teacher is None:
        raise InputError(
            f"{recipe.name} learns from a teacher: set teacher to a .keras file, a "
            "SavedModel or a keras.applications name. Received: "
            f"distillation={recipe.distillation}, teacher=none"
        )
    if recipe.distillation == "none" and recipe.teacher is not None:
        raise InputError(
            "A teacher needs distillation=hard or soft. Received: distillation=none, "
            f"teacher={recipe.teacher}"
        )
    changes = {"epochs": epochs}
    if recipe.warmup_epochs is None:
        changes["warmup_epochs"] = WARMUP_SHARE * epochs
    if recipe.flip is None:
        changes["flip"] = 0.5 if flip else 0.0
    if recipe.mean is None and mean is not None:
        changes.update(mean=mean, std=std)
    return dataclasses.replace(recipe, **changes)


def with_epochs(recipe, epochs):
    """The recipe's schedule in another number of epochs.

    Warm-up and cool-down keep their share. A warm-up of less than two epochs is
    taken by step: by epoch, it would hold one of them at its first rate.
    """
    changes = {"epochs": epochs}
    if recipe.epochs is not None:
        share = epochs / recipe.epochs
        changes["cooldown_epochs"] = round(recipe.cooldown_epochs * share)
        if recipe.warmup_epochs:
            changes["warmup_epochs"] = recipe.warmup_epochs * share
            if changes["warmup_epochs"] < min(2, recipe.warmup_epochs):
                changes["schedule_by"] = "step"
    return dataclasses.replace(recipe, **changes)


def scaled_rates(recipe, global_batch=None):
    """`(peak, warm-up, final)` rate for a batch over all replicas.

    Args:
        global_batch: images per update; `None`: the recipe's.
    """
    rates = recipe.learning_rate, recipe.warmup_rate, recipe.final_rate
    if recipe.rate_batch is None:
        return rates
    factor = (global_batch or recipe.batch_size) / recipe.rate_batch
    if recipe.scale_all:
        return tuple(rate * factor for rate in rates)
    return rates[0] * factor, *rates[1:]
