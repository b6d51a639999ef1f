"""A recipe as text for the terminal and as JSON for a file."""

import dataclasses
import textwrap

from training.console import Stop
from training.recipes.recipe import HINTS, Recipe, show

WIDTH = 88
_GROUPS = {
    "length": "epochs cooldown_epochs batch_size accumulate",
    "optimizer": "optimizer weight_decay beta_1 beta_2 epsilon clip_norm",
    "rate": "learning_rate final_rate warmup_epochs warmup_rate cosine_from "
    "schedule_by rate_batch scale_all",
    "regularisation": "label_smoothing drop_path ema evaluate sync_batchnorm",
    "images": "image_size crop crop_scale crop_ratio interpolation flip policy erasing "
    "repeats mixup cutmix mix_probability switch_probability mean std",
    "test": "test_crop test_interpolation",
    "distillation": "distillation teacher distillation_alpha temperature",
}
GROUPS = {group: tuple(fields.split()) for group, fields in _GROUPS.items()}


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
    for group, fields in GROUPS.items():
        lines.append(f"  {group}")
        cells = []
        for field in fields:
            value = show(getattr(recipe, field))
            before = value if base is None else show(getattr(base, field))
            if value != before:
                changed.append(f"{field} {before}")
            cells.append(f"{field:<19}{value}{'' if value == before else ' *'}")
        lines += _columns(cells)
    if recipe.model or (base and base.model):
        lines.append("  model")
        entries = [f"{name:<19}{show(value)}" for name, value in recipe.model.items()]
        lines += _columns(entries or ["the architecture's own"])
        if base and base.model != recipe.model:
            before = " ".join(f"{k}={show(v)}" for k, v in base.model.items())
            changed.append(f"model {before or 'none'}")
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


def from_json(fields):
    """The recipe that `to_json` gave.

    Raises:
        Stop: fields that are missing or unknown, or values that do not fit.
    """
    differ = sorted(set(fields) ^ set(HINTS))
    if differ:
        raise Stop(
            "This is not a recipe of this version: fields are missing or unknown. "
            f"Received: {', '.join(differ)}"
        )
    return Recipe(**{name: _tupled(value) for name, value in fields.items()})


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
