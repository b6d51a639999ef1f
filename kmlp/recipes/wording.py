"""Write a recipe as text for the terminal and as JSON for a file."""

import dataclasses
import textwrap

from kmlp.errors import InputError
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.dense_recipe import DenseRecipe
from kmlp.recipes.recipe import Recipe, show
from kmlp.typing import Config

_WIDTH = 88
# Whose arguments a field holds, where it holds none.
_OWN = {"model": "the architecture's own", "head_arguments": "the head's own"}


def describe(recipe: Recipe, base: Recipe | None = None) -> str:
    """List all that decides training, grouped and aligned.

    Args:
        recipe: Recipe to describe.
        base: The recipe before it was changed: what differs is marked.

    Returns:
        Lines of at most 88 columns where the values are short enough.
    """
    lines = [f"Recipe {recipe.name}: {recipe.reproduces}"]
    if recipe.notes:
        lines += textwrap.wrap(
            recipe.notes, _WIDTH, initial_indent="  ", subsequent_indent="  "
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
    for field, own in _OWN.items():
        entries = getattr(recipe, field, {})
        old = entries if base is None else getattr(base, field, {})
        if entries or old:
            lines.append(f"  {field.replace('_', ' ')}")
            cells = [f"{name:<19}{show(value)}" for name, value in entries.items()]
            lines += _columns(cells or [own])
        if entries != old:
            shown = " ".join(f"{k}={show(v)}" for k, v in old.items())
            changed.append(f"{field} {shown or 'none'}")
    if changed:
        lines.append(f"  * changed; the recipe has {', '.join(changed)}")
    return "\n".join(lines)


def _columns(cells):
    """Return the lines of two columns; a wide cell has one of its own."""
    column = (_WIDTH - 4) // 2
    lines, waits = [], False
    for cell in cells:
        if waits and len(cell) <= column:
            lines[-1] = f"{lines[-1]:<{column}}{cell}"
            waits = False
        else:
            waits = len(cell) < column
            lines.append(cell)
    return [f"    {line}" for line in lines]


def to_json(recipe: Recipe) -> Config:
    """Return the recipe as what `json.dump` takes."""
    return _nested(dataclasses.asdict(recipe), list)


def from_json(fields: Config, kind: type[Recipe] | None = None) -> Recipe:
    """Return the recipe that `to_json` gave.

    Args:
        fields: What `to_json` returned.
        kind: Class of the recipe, `ClassificationRecipe` or `DenseRecipe`; `None`: the
            one that `fields` are of.

    Raises:
        InputError: If fields are missing or unknown, or values do not fit.
    """
    if kind is None:
        kind = DenseRecipe if "task" in fields else ClassificationRecipe
    differ = sorted(set(fields) ^ set(kind.hints()))
    if differ:
        raise InputError(
            "This is not a recipe of this version: fields are missing or unknown. "
            f"Received: {', '.join(differ)}"
        )
    return kind(**_nested(fields, tuple))


def _nested(value, kind):
    """Return a value whose lists and tuples, at any depth, are of one kind."""
    if isinstance(value, dict):
        return {name: _nested(entry, kind) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return kind(_nested(entry, kind) for entry in value)
    return value
