"""Convert values to the types of a recipe's fields, and text to values."""

import ast
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from kmlp.errors import InputError

Pair = tuple[float, float]
Triple = tuple[float, float, float]
MISFIT = object()
R = TypeVar("R")


def is_sequence(hint: Any) -> bool:
    """Return whether a type is a tuple of any length."""
    return typing.get_origin(hint) is tuple and typing.get_args(hint)[-1] is Ellipsis


def conform(value: Any, hint: Any) -> Any:
    """Return a value as its field's type, or `MISFIT`; integers serve as numbers."""
    if isinstance(hint, types.UnionType):
        kinds = typing.get_args(hint)
        if value is None:
            return None if type(None) in kinds else MISFIT
        return conform(value, kinds[0])
    if typing.get_origin(hint) is Literal:
        fits = any(value == choice for choice in typing.get_args(hint))
        return value if fits else MISFIT
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (tuple, list)):
            return MISFIT
        kinds = typing.get_args(hint)
        if is_sequence(hint):
            kinds = kinds[:1] * len(value)
        if len(value) != len(kinds):
            return MISFIT
        values = tuple(conform(*pair) for pair in zip(value, kinds))
        return MISFIT if MISFIT in values else values
    if hint is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return float(value) if number and math.isfinite(value) else MISFIT
    if hint is int and isinstance(value, bool):
        return MISFIT
    return value if isinstance(value, hint) else MISFIT


def show(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return ",".join(map(show, value)) or "none"
    return str(value)


_WORDS = {"none": None, "true": True, "false": False}


def override(recipe: R, settings: Iterable[str]) -> R:
    """Return the recipe with fields set from text.

    Args:
        recipe: Recipe of any task.
        settings: Settings such as `["epochs=10", "crop_scale=0.5,1", "clip_norm=none",
            "model.layer_scale=0.1"]`; of a field set twice the last counts.

    Raises:
        InputError: If a setting is no `FIELD=VALUE`, names an unknown field (the
            message says which is nearest), has a value of the wrong type or out of
            range, or contradicts others.
    """
    changes, hints = {}, recipe.hints()
    for setting in settings:
        field, equals, text = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError(f"A field is set by FIELD=VALUE. Received: {setting}")
        field, dot, entry = field.partition(".")
        check_settable(recipe, field, setting)
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


def parse(text: str, hint: Any) -> Any:
    """Return text as a field's type, or `MISFIT`."""
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


def check_settable(recipe: Any, field: str, setting: str) -> None:
    """Raise an `InputError` unless a setting may change the field."""
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
