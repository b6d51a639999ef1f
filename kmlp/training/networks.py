"""The network of an architecture under a recipe."""

import difflib
import inspect

from kmlp.errors import InputError
from kmlp.models.registry import variant
from kmlp.pretrained.creation import create_model

POLICIES = {
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
    arch,
    num_classes,
    image_size,
    recipe,
    *,
    local_kernels=None,
    dtype=None,
    overrides=None,
):
    """The network of an architecture for square images, with fresh weights.

    Args:
        arch: of `kmlp.list_models()`.
        num_classes: classes of the head.
        image_size: height and width in pixels.
        recipe: a `Recipe`: its stochastic depth and `model` arguments are used.
        local_kernels: sizes of the local branches; `None`: the architecture's own.
        dtype: precision, `"float32"`, `"bfloat16"`, `"float16"`, or a Keras dtype
            policy; `None`: Keras' own. Weights are float32 in all of them.
        overrides: further arguments of the family's class.

    Raises:
        InputError: an unknown name, or arguments that do not fit the architecture.
    """
    arguments = {**recipe.model, **(overrides or {})}
    known = _known(arch)
    if local_kernels is not None:
        if "local_kernels" not in known:
            raise InputError(
                f"{arch} has no local branches: leave --local-kernels out or choose a "
                "family that has them. Received: --local-kernels "
                + ",".join(map(str, local_kernels))
            )
        arguments["local_kernels"] = tuple(local_kernels)
    check(arch, arguments)
    if recipe.drop_path is not None:
        arguments["drop_path_rate"] = recipe.drop_path
    try:
        return create_model(
            arch,
            num_classes,
            (image_size, image_size, 3),
            dtype=POLICIES.get(dtype, dtype),
            **arguments,
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{arch} cannot be built for {image_size}x{image_size}: {error}"
        ) from error


def _known(arch):
    """Names of the arguments of an architecture's class."""
    family, _ = variant(arch)
    return set(inspect.signature(family).parameters) - {"self"}


def check(arch, arguments):
    """Checks the names of further arguments of an architecture's class.

    Raises:
        InputError: one that follows from elsewhere, or that the class does not have.
    """
    check_names(arch, "model", arguments, _known(arch), RESERVED)


def check_names(owner, field, arguments, known, reserved):
    """Checks the names of arguments that a recipe's field holds.

    Args:
        owner: whose arguments they are, in words.
        field: of the recipe.
        arguments: `{name: value}`.
        known: names of all arguments of the owner.
        reserved: `{name: what to do instead}` of those that follow from elsewhere.

    Raises:
        InputError: one of the reserved, or that the owner does not have.
    """
    for name, value in arguments.items():
        received = f"Received: {field}.{name}={value!r}"
        if name in reserved:
            raise InputError(
                f"{name} is not set by the recipe: {reserved[name]}. {received}"
            )
        if name not in known:
            settable = sorted(set(known) - set(reserved))
            near = difflib.get_close_matches(name, settable, n=1, cutoff=0.6)
            choose = near[0] if near else f"one of {', '.join(settable)}"
            raise InputError(
                f"{owner} has no argument of this name: choose {choose}. {received}"
            )
