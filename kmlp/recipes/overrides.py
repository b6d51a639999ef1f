"""Fields of a recipe from the command line: `FIELD=VALUE`."""

import ast
import dataclasses
import difflib
import types
import typing

from kmlp.errors import InputError
from kmlp.recipes.fields import MISFIT, conform, is_sequence

_WORDS = {"none": None, "true": True, "false": False}


def override(recipe, settings):
    """The recipe with fields set from text.

    Args:
        recipe: `Recipe` or `DenseRecipe`.
        settings: such as `["epochs=10", "crop_scale=0.5,1", "clip_norm=none",
            "model.layer_scale=0.1"]`; of a field set twice the last counts.

    Raises:
        InputError: no `FIELD=VALUE`, an unknown field (the nearest is named), a value
            of the wrong type or out of range, or fields that contradict each other.
    """
    changes, hints = {}, recipe.hints()
    for setting in settings:
        field, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError(f"A field is set by FIELD=VALUE. Received: {setting}")
        field, dot, entry = field.partition(".")
        _check_settable(recipe, field, setting)
        if dot and hints[field] is dict:
            entries = changes.setdefault(field, dict(getattr(recipe, field)))
            entries[entry] = _literal(text)
            continue
        value = MISFIT if dot else parse(text, hints[field])
        if value is MISFIT:
            raise InputError(
                f"{field} must be {recipe.allowed(field)}. Received: {setting}"
            )
        changes[field] = value
    return dataclasses.replace(recipe, **changes)


def parse(text, hint):
    """Text as a field's type, or `MISFIT`."""
    optional = isinstance(hint, types.UnionType)
    if optional:
        hint = typing.get_args(hint)[0]
        if text.lower() == "none":
            return None
    if hint is str or typing.get_origin(hint) is typing.Literal:
        return conform(text, hint)
    if hint is dict:
        return {} if text.lower() == "none" else MISFIT
    if is_sequence(hint) and text.lower() == "none":
        return ()
    value = _literal(text)
    if is_sequence(hint) and isinstance(value, (int, float)):
        value = (value,)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    return MISFIT if value is None else conform(value, hint)


def _literal(text):
    """Text as the number, word, tuple or string that it looks like."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return tuple(value) if isinstance(value, list) else value


def _check_settable(recipe, field, setting):
    if field in recipe.DESCRIPTIVE:
        raise InputError(
            f"{field} describes the recipe and is not set. Received: {setting}"
        )
    if field not in recipe.hints():
        settable = [n for n in recipe.hints() if n not in recipe.DESCRIPTIVE]
        near = difflib.get_close_matches(field, settable, n=1, cutoff=0.5)
        choose = near[0] if near else f"one of {', '.join(settable)}"
        raise InputError(
            f"Unknown field of a recipe: choose {choose}. Received: {setting}"
        )
