"""The network of an architecture under a recipe."""

import contextlib
import inspect
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import keras

from kmlp.errors import InputError, nearest
from kmlp.models.registry import variant
from kmlp.pretrained.creation import create_model

POLICIES: dict[str | None, str | None] = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
# Arguments of every family that follow from the data and the command line.
RESERVED = {
    "num_classes": "it follows from the data",
    "input_shape": "set image_size",
    "drop_path_rate": "set drop_path",
    "dtype": "pass --precision",
    "name": "it is the architecture's",
    "include_top": "the network that is trained has its head",
    "head_activation": "the losses take logits",
}


def build(
    arch: str,
    num_classes: int,
    image_size: int,
    recipe: Any,
    *,
    local_kernels: Sequence[int] | None = None,
    dtype: str | None = None,
    overrides: dict[str, Any] | None = None,
) -> keras.Model:
    """Build the network of an architecture for square images, with fresh weights.

    Args:
        arch: Name from `kmlp.list_models()`.
        num_classes: Classes of the head.
        image_size: Height and width in pixels.
        recipe: Recipe whose stochastic depth and `model` arguments are used.
        local_kernels: Sizes of the local branches; `None`: the architecture's own.
        dtype: Precision, `"float32"`, `"bfloat16"`, `"float16"`, or a Keras dtype
            policy; `None`: Keras' own. Weights are float32 in all of them.
        overrides: Further arguments of the family's class.

    Raises:
        InputError: If a name is unknown, or arguments do not fit the architecture.
    """
    arguments = {**recipe.model, **(overrides or {})}
    if local_kernels is not None:
        if "local_kernels" not in _known(arch):
            raise InputError(
                f"{arch} has no local branches: leave --local-kernels out or choose a "
                "family that has them. Received: --local-kernels "
                + ",".join(map(str, local_kernels))
            )
        arguments["local_kernels"] = tuple(local_kernels)
    size = (image_size, image_size)
    return create(
        arch, arch, size, recipe, arguments, num_classes=num_classes, dtype=dtype
    )


def create(
    what: str,
    arch: str,
    size: tuple[int, int],
    recipe: Any,
    arguments: dict[str, Any],
    *,
    dtype: str | None = None,
    **options: Any,
) -> keras.Model:
    """Create a model of an architecture under a recipe.

    Args:
        what: Words for what is built, in a message.
        arch: Name from `kmlp.list_models()`.
        size: Height and width of the images.
        recipe: Recipe whose stochastic depth is used.
        arguments: Arguments of the family's class.
        dtype: Precision or policy, as in `build`.
        **options: Further arguments of `kmlp.create_model`.

    Raises:
        InputError: If a name is unknown, or weights or arguments do not fit.
    """
    check(arch, arguments)
    if recipe.drop_path is not None:
        arguments = {**arguments, "drop_path_rate": recipe.drop_path}
    options |= {"input_shape": (*size, 3), "dtype": POLICIES.get(dtype, dtype)}
    with explained(what, size):
        return create_model(arch, **options, **arguments)


@contextlib.contextmanager
def explained(what: str, size: Sequence[int]) -> Iterator[None]:
    """Say of an error that something cannot be built for images of a size."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        by = "x".join(map(str, size))
        raise InputError(f"{what} cannot be built for {by}: {error}") from error


def _known(arch):
    """Return the names of the arguments of an architecture's class."""
    family, _ = variant(arch)
    return set(inspect.signature(family).parameters) - {"self"}


def check(arch: str, arguments: dict[str, Any]) -> None:
    """Check the names of further arguments of an architecture's class.

    Raises:
        InputError: If one follows from elsewhere, or the class does not have it.
    """
    check_names(arch, "model", arguments, _known(arch), RESERVED)


def check_names(
    owner: str,
    field: str,
    arguments: dict[str, Any],
    known: Collection[str],
    reserved: dict[str, str],
) -> None:
    """Check the names of arguments that a recipe's field holds.

    Args:
        owner: Whose arguments they are, in words.
        field: Name of the recipe's field.
        arguments: Values by name.
        known: Names of all arguments of the owner.
        reserved: What to do instead, by the names of those that follow from elsewhere.

    Raises:
        InputError: If one is reserved, or the owner does not have it.
    """
    for name, value in arguments.items():
        received = f"Received: {field}.{name}={value!r}"
        if name in reserved:
            raise InputError(
                f"{name} is not set by the recipe: {reserved[name]}. {received}"
            )
        if name not in known:
            settable = sorted(set(known) - set(reserved))
            near = " or ".join(nearest(name, settable, 1))
            choose = near or f"one of {', '.join(settable)}"
            raise InputError(
                f"{owner} has no argument of this name: choose {choose}. {received}"
            )
