"""What all recipes are: frozen dataclasses whose fields are checked by their types."""

import math
import types
import typing
from typing import Literal

from kmlp.errors import InputError

Pair = tuple[float, float]
Triple = tuple[float, float, float]
MISFIT = object()


class Fields:
    """The base of frozen dataclasses that the command line changes by field.

    A subclass has fields of the types that `allowed` has words for, `X | None` among
    them.

    Attributes:
        DESCRIPTIVE: fields that say which recipe it is, not how it trains.
        GROUPS: `{title: fields}` in which a recipe is shown.
        RANGES: `(fields, words, condition)`: what values must be besides their type;
            the words stand behind the type's.

    Raises:
        InputError: a value of the wrong type or out of range, or values that
            contradict.
    """

    DESCRIPTIVE = ()
    GROUPS = types.MappingProxyType({})
    RANGES = ()

    def __post_init__(self):
        for field, hint in self.hints().items():
            value = conform(getattr(self, field), hint)
            if value is MISFIT:
                raise InputError(
                    f"{field} must be {self.allowed(field)}. "
                    f"Received: {field}={getattr(self, field)!r}"
                )
            object.__setattr__(self, field, value)
            if value is not None and not self._in_range(field, value):
                raise InputError(
                    f"{field} must be {self.allowed(field)}. "
                    f"Received: {field}={show(value)}"
                )
        self._check_together()

    @classmethod
    def hints(cls):
        """`{field: type}`."""
        return typing.get_type_hints(cls)

    @classmethod
    def allowed(cls, field):
        """What a field may hold, in words."""
        hint = cls.hints()[field]
        optional = isinstance(hint, types.UnionType)
        if optional:
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is Literal:
            words = " or ".join(typing.get_args(hint))
            return f"{words}, or none" if optional else words
        if is_sequence(hint):
            words = "numbers with commas between them"
        elif typing.get_origin(hint) is tuple:
            words = f"{len(typing.get_args(hint))} numbers with commas between them"
        else:
            words = {
                int: "an integer",
                float: "a number",
                bool: "true or false",
                str: "a text",
                dict: f"given by entry, {field}.NAME=VALUE",
            }[hint]
        if found := cls._range(field):
            words = f"{words} {found[0]}"
        return f"{words}, or none" if optional else words

    @classmethod
    def _range(cls, field):
        """`(words, condition)`, or `None`."""
        found = [
            (words, holds)
            for fields, words, holds in cls.RANGES
            if field in fields.split()
        ]
        return found[0] if found else None

    @classmethod
    def _in_range(cls, field, value):
        found = cls._range(field)
        return found is None or found[1](value)

    def _check_together(self):
        """Stops at values that contradict each other."""

    def _check_common(self):
        """What contradicts in recipes of every kind."""
        if (self.mean is None) != (self.std is None):
            raise InputError(
                "mean and std are given together, or neither. Received: "
                f"mean={show(self.mean)}, std={show(self.std)}"
            )
        if self.batch_size % self.accumulate:
            raise InputError(
                "accumulate must divide batch_size. Received: "
                f"accumulate={self.accumulate}, batch_size={self.batch_size}"
            )


def is_sequence(hint):
    """Whether a type is a tuple of any length."""
    return typing.get_origin(hint) is tuple and typing.get_args(hint)[-1] is Ellipsis


def conform(value, hint):
    """A value as its field's type, or `MISFIT`; integers serve as numbers."""
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


def show(value):
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (tuple, list)):
        return ",".join(map(show, value)) or "none"
    return str(value)
