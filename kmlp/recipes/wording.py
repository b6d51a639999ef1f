"""A recipe as text for the terminal and as JSON for a file."""

import dataclasses
import textwrap

from kmlp.errors import InputError
from kmlp.recipes.fields import show
from kmlp.recipes.recipe import Recipe

WIDTH = 88
# Whose arguments a field holds, where it holds none.
OWN = {"model": "the architecture's own", "head_arguments": "the head's own"}


def describe(recipe, base=None):
    """All that decides training, grouped and aligned.

    Args:
        base: the recipe before it was changed: what differs is marked.

    Returns:
        Lines of at most 88 columns where the values are short enough.
    """
    lines = [f"Recipe {recipe.name}: {recipe.reproduces}"]
    if recipe.notes:
        lines += textwrap.wrap(
            recipe.notes, WIDTH, initial_indent="  ", subsequent_indent="  "
        )
    changed = []
    for group, fields in recipe.GROUPS.items():
        lines.append(f"  {group}")
        cells = []
        for field in fields.split():
            value = show(getattr(recipe, field))
            before = value if base is None else show(getattr(base, field))
            if value != before:
                changed.append(f"{field} {before}")
            cells.append(f"{field:<19}{value}{'' if value == before else ' *'}")
        lines += _columns(cells)
    for field, own in OWN.items():
        entries = getattr(recipe, field, {})
        before = entries if base is None else getattr(base, field, {})
        if entries or before:
            lines.append(f"  {field.replace('_', ' ')}")
            cells = [f"{name:<19}{show(value)}" for name, value in entries.items()]
            lines += _columns(cells or [own])
        if entries != before:
            before = " ".join(f"{k}={show(v)}" for k, v in before.items())
            changed.append(f"{field} {before or 'none'}")
    if changed:
        lines.append(f"  * changed; the recipe has {', '.join(changed)}")
    return "\n".join(lines)


def _columns(cells):
    """Cells in two columns; a wide one has a line of its own."""
    column = (WIDTH - 4) // 2
    lines, waiting = [], None
    for cell in cells:
        if waiting is None and len(cell) < column:
            waiting = cell
        elif waiting is not None and len(cell) <= column:
            lines.append(f"    {waiting:<{column}}{cell}")
            waiting = None
        else:
            lines += [f"    {text}" for text in (waiting, cell) if text is not None]
            waiting = None
    if waiting is not None:
        lines.append(f"    {waiting}")
    return lines


def to_json(recipe):
    """The recipe as what `json.dump` takes."""
    return _listed(dataclasses.asdict(recipe))


def from_json(fields, kind=Recipe):
    """The recipe that `to_json` gave.

    Args:
        kind: `Recipe` or `DenseRecipe`.

    Raises:
        InputError: fields that are missing or unknown, or values that do not fit.
    """
    differ = sorted(set(fields) ^ set(kind.hints()))
    if differ:
        raise InputError(
            "This is not a recipe of this version: fields are missing or unknown. "
            f"Received: {', '.join(differ)}"
        )
    return kind(**{name: _tupled(value) for name, value in fields.items()})


def _listed(value):
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_listed(entry) for entry in value]
    return value


def _tupled(value):
    if isinstance(value, dict):
        return {name: _tupled(entry) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_tupled(entry) for entry in value)
    return value


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
