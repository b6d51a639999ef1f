"""Hold a training recipe: the fields of every task, checked by their types."""

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from kmlp.errors import InputError
from kmlp.recipes.fields import MISFIT, Triple, conform, is_sequence, show

# Fields, the words behind the type's that say what they must be, and the condition.
Ranges = tuple[tuple[str, str, Callable[[Any], bool]], ...]


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
        GROUPS: `{title: fields}` in which a recipe is shown.
        RANGES: `(fields, words, condition)`: what values must be besides their type.

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

    DESCRIPTIVE = ("name", "reproduces", "notes")
    GROUPS = types.MappingProxyType({})
    RANGES = (
        ("epochs batch_size accumulate", "of at least 1", lambda value: value >= 1),
        ("learning_rate epsilon clip_norm", "above 0", lambda value: value > 0),
        ("weight_decay final_rate", "of at least 0", lambda value: value >= 0),
        ("beta_1 beta_2 drop_path", "in [0, 1)", lambda value: 0 <= value < 1),
        ("flip", "in [0, 1]", lambda value: 0 <= value <= 1),
        ("mean", "in [0, 1]", lambda triple: all(0 <= value <= 1 for value in triple)),
        ("std", "above 0", lambda triple: min(triple) > 0),
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
            if value is not None and not self._in_range(field, value):
                raise InputError(
                    f"{field} must be {self.allowed(field)}. "
                    f"Received: {field}={show(value)}"
                )
        self._check_together()

    @classmethod
    def hints(cls) -> dict[str, Any]:
        """Return `{field: type}`."""
        return typing.get_type_hints(cls)

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

    def shortened(self, length: int) -> "Recipe":
        """Return the recipe with another length; its schedule keeps its shares."""
        raise NotImplementedError

    def _check_together(self):
        """Raise where values contradict each other."""
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
