"""Architectures by name."""

import fnmatch
import inspect
from collections.abc import Iterable
from typing import Any

from kmlp.errors import InputError, nearest
from kmlp.models.papers import ABLATIONS
from kmlp.models.variants import FAMILIES

# Name -> (name of the family's class, arguments that differ from its defaults).
VARIANTS = {
    name: (family, arguments)
    for family, variants in FAMILIES.items()
    for name, arguments in variants.items()
}


def family_class(family: str) -> type:
    """Return the class of a family; importing it takes Keras.

    Args:
        family: Name of the class, such as `"ConvMLP"`.
    """
    from kmlp.models.convmlp import ConvMLP
    from kmlp.models.focal import FocalTransformer
    from kmlp.models.hybrid import MSMLPHybrid
    from kmlp.models.msmlp import MSMLP
    from kmlp.models.repmlpnet import RepMLPNet
    from kmlp.models.resmlp import ResMLP
    from kmlp.models.smlpnet import SMLPNet
    from kmlp.models.swin import SwinTransformer

    mlps = (ConvMLP, MSMLP, RepMLPNet, ResMLP, SMLPNet)
    classes = (*mlps, FocalTransformer, MSMLPHybrid, SwinTransformer)
    return {one.__name__: one for one in classes}[family]


def list_models(pattern: str = "*") -> list[str]:
    """List the architectures that match a shell pattern, sorted.

    Args:
        pattern: Shell pattern of names, such as `"convmlp_*"`.
    """
    return sorted(fnmatch.filter(VARIANTS, pattern))


def variant(name: str) -> tuple[type, dict[str, Any]]:
    """Return an architecture's class and its arguments beyond the class's defaults.

    Args:
        name: Name of `list_models()` or `list_ablations()`.

    Raises:
        InputError: If there is no such name; the message has the nearest.
    """
    family, arguments = described(name)
    return family_class(family), arguments


def described(name: str) -> tuple[str, dict[str, Any]]:
    """Return the name of an architecture's family and its arguments, without Keras.

    Args:
        name: As in `variant`.

    Raises:
        InputError: If there is no such name; the message has the nearest.
    """
    if name in ABLATIONS:
        row = ABLATIONS[name]
        family, arguments = VARIANTS[row.architecture]
        return family, {**arguments, **row.arguments}
    if name not in VARIANTS:
        known = ABLATIONS if "/" in str(name) else sorted(VARIANTS)
        near = nearest(name, known)
        choose = " or ".join(near)
        if not near and known is ABLATIONS:
            choose = "one of `kmlp list --ablations`"
        elif not near:
            choose = f"one of {', '.join(known)}"
        raise InputError(f"Unknown architecture: choose {choose}. Received: {name!r}")
    return VARIANTS[name]


def base_name(name: str) -> str:
    """Return the variant that an ablation is a change of, or a variant's own name."""
    return ABLATIONS[name].architecture if name in ABLATIONS else name


def check_options(family: type, names: Iterable[str]) -> None:
    """Check that names are arguments of a family.

    Args:
        family: Class of the family.
        names: Names of the arguments.

    Raises:
        InputError: If the family takes no such argument; the message has the nearest.
    """
    known = inspect.signature(family).parameters
    for name in names:
        if name not in known:
            near = nearest(name, known) or sorted(known)
            raise InputError(
                f"{family.__name__} has no such option; choose {' or '.join(near)}. "
                f"Received: {name!r}"
            )


def create_model(
    name: str,
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    **overrides: Any,
) -> Any:
    """Build an architecture by name, with fresh weights.

    Args:
        name: Name of `list_models()`, or of `list_ablations()`, such as
            `"convmlp/table2/mlp_merge"`.
        num_classes: Classes of the head; `None`: the variant's own, mostly 1000.
        input_shape: Shape `(H, W, C)`; `None`: the variant's own.
        **overrides: Further arguments of the family's class.

    Returns:
        A functional `keras.Model` named after the architecture; in an ablation's name
        underscores take the place of slashes.

    Raises:
        InputError: If there is no such name; the message has the nearest.
    """
    family, arguments = variant(name)
    arguments = {"name": name.replace("/", "_"), **arguments, **overrides}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if input_shape is not None:
        arguments["input_shape"] = input_shape
    return family(**arguments)
