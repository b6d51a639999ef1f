"""Hold a training recipe: fields that are checked by their types and set from text."""

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, NoReturn, TypeVar

from kmlp.errors import InputError, nearest
from kmlp.typing import Config

Pair = tuple[float, float]
Triple = tuple[float, float, float]
R = TypeVar("R", bound="Recipe")

MISFIT = object()
_WORDS = {"none": None, "true": True, "false": False}
# Constraints on numbers besides their type, in words and as a condition.
_CONDITIONS = {
    "of at least 1": lambda numbers: min(numbers) >= 1,
    "of at least 0": lambda numbers: min(numbers) >= 0,
    "above 0": lambda numbers: min(numbers) > 0,
    "in [0, 1)": lambda numbers: 0 <= min(numbers) <= max(numbers) < 1,
    "in [0, 1]": lambda numbers: 0 <= min(numbers) <= max(numbers) <= 1,
    "in (0, 1]": lambda numbers: 0 < min(numbers) <= max(numbers) <= 1,
    "in (0, 1], low and high": lambda pair: 0 < pair[0] <= pair[1] <= 1,
    "above 0, low and high": lambda pair: 0 < pair[0] <= pair[1],
    "of at least 1, low and high": lambda pair: 1 <= pair[0] <= pair[1],
    "of at least 1, height and width": lambda pair: min(pair) >= 1,
    "of at least 1, the long side first": lambda pair: pair[0] >= pair[1] >= 1,
    "of at least 1 that rise": lambda numbers: (
        list(numbers) == sorted(set(numbers)) and min(numbers, default=1) >= 1
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hold what the recipes of all tasks share.

    A task's class adds its own fields. A field's type is one that `allowed` has words
    for, `X | None` among them.

    Attributes:
        name: Name of the recipe.
        reproduces: Paper and table, in words.
        notes: Remarks on what the paper leaves open, and where others differ from it.

        epochs: Length of the run, 1 or more; `None`: by another field.
        batch_size: Images per update over all replicas.
        accumulate: Micro-batches whose gradients make an update; divides
            `batch_size`.

        optimizer: Name of the optimizer; a task's class says which.
        beta_1, beta_2: Decay of the moments, in [0, 1).
        epsilon: Term beside the second moment's root, above 0.
        weight_decay: Decay of kernels, decoupled but in SGD; biases, norms and scales
            have none.
        clip_norm: Bound of the gradient's global norm; `None`: unbounded.

        learning_rate: Peak of the schedule, above 0.
        final_rate: Rate where the schedule ends.
        drop_path: Rate of stochastic depth, in [0, 1); `None`: the architecture's.
        sync_batchnorm: Whether BatchNorm's statistics are of all replicas.

        flip: Probability of mirroring.
        mean, std: Statistics per channel, of images in 0…1.

        model: Further arguments of the architecture's class.

        DESCRIPTIVE: Fields that say which recipe it is, not how it trains.
        GROUPS: Groups `{title: fields}` in which a recipe is shown.
        RANGES: Pairs `(fields, words)`: what numbers must be besides their type.

    Raises:
        InputError: If a value has the wrong type or is out of range, or if values
            contradict.
    """

    name: str
    reproduces: str = ""
    notes: str = ""

    epochs: int | None = None
    batch_size: int
    accumulate: int = 1

    optimizer: Literal["adamw", "lamb", "sgd"] = "adamw"
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None

    learning_rate: float
    final_rate: float = 0.0
    drop_path: float | None = None
    sync_batchnorm: bool = False

    flip: float | None = 0.5
    mean: Triple | None = None
    std: Triple | None = None

    model: dict = dataclasses.field(default_factory=dict)

    DESCRIPTIVE: ClassVar[tuple[str, ...]] = ("name", "reproduces", "notes")
    GROUPS: ClassVar[Mapping[str, str]] = types.MappingProxyType({})
    RANGES: ClassVar[tuple[tuple[str, str], ...]] = (
        ("epochs batch_size accumulate", "of at least 1"),
        ("learning_rate epsilon clip_norm std", "above 0"),
        ("weight_decay final_rate", "of at least 0"),
        ("beta_1 beta_2 drop_path", "in [0, 1)"),
        ("flip mean", "in [0, 1]"),
    )

    def __post_init__(self):
        for field, hint in self.hints().items():
            value = conform(getattr(self, field), hint)
            if value is MISFIT:
                raise InputError(
                    f"{field} must be {self.allowed(field)}. "
                    f"Received: {field}={getattr(self, field)!r}"
                )
            object.__setattr__(self, field, value)
            words = self._range(field)
            if value is not None and words is not None:
                numbers = value if isinstance(value, tuple) else (value,)
                if not _CONDITIONS[words](numbers):
                    self.refuse(f"{field} must be {self.allowed(field)}.", field)
        self._check_together()

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """Return `{field: type}`."""
        hints = typing.get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    def allowed(cls, field: str) -> str:
        """Say in words which values a field may hold."""
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
            words = f"{words} {found}"
        return f"{words}, or none" if optional else words

    @classmethod
    def _range(cls, field):
        found = [words for fields, words in cls.RANGES if field in fields.split()]
        return found[0] if found else None

    def refuse(self, problem: str, *fields: str) -> NoReturn:
        """Raise an `InputError` that shows the fields that the problem is about."""
        shown = [f"{field}={show(getattr(self, field))}" for field in fields]
        raise InputError(f"{problem} Received: {', '.join(shown)}")

    def shortened(self, length: int) -> "Recipe":
        """Return the recipe with another length; its schedule keeps its shares."""
        raise NotImplementedError

    def _check_together(self):
        """Raise where values contradict each other."""
        self._check_both("mean", "std")
        if self.batch_size % self.accumulate:
            self.refuse(
                "accumulate must divide batch_size.", "accumulate", "batch_size"
            )

    def _check_both(self, one, other):
        if (getattr(self, one) is None) != (getattr(self, other) is None):
            problem = f"{one} and {other} are given together, or neither."
            self.refuse(problem, one, other)


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
    changes: Config = {}
    hints = recipe.hints()
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
    """Return text as the number, word, tuple or string that it looks like."""
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
        near = " or ".join(nearest(field, settable, 1))
        choose = near or f"one of {', '.join(settable)}"
        raise InputError(
            f"Unknown field of a recipe: choose {choose}. Received: {setting}"
        )
