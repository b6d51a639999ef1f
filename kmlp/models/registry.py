"""Architectures by name."""

import difflib
import fnmatch
import inspect

from kmlp.models import convmlp, msmlp, repmlpnet, resmlp, smlpnet

_FAMILIES = (
    (convmlp.ConvMLP, convmlp.VARIANTS),
    (msmlp.MSMLP, msmlp.VARIANTS),
    (repmlpnet.RepMLPNet, repmlpnet.VARIANTS),
    (resmlp.ResMLP, resmlp.VARIANTS),
    (smlpnet.SMLPNet, smlpnet.VARIANTS),
)

# Name -> (class, arguments that differ from the class's defaults).
VARIANTS = {
    name: (family, arguments)
    for family, variants in _FAMILIES
    for name, arguments in variants.items()
}


def list_models(pattern="*"):
    """Names of the architectures that match a shell pattern, sorted.

    Args:
        pattern: such as `"convmlp_*"`.
    """
    return sorted(fnmatch.filter(VARIANTS, pattern))


def variant(name):
    """The class of an architecture and its arguments beyond the class's defaults.

    Raises:
        ValueError: an unknown name; the message names the nearest.
    """
    if name not in VARIANTS:
        near = difflib.get_close_matches(str(name).lower(), VARIANTS, n=3, cutoff=0.5)
        known = " or ".join(near) if near else f"one of {', '.join(sorted(VARIANTS))}"
        raise ValueError(f"Unknown architecture: choose {known}. Received: {name!r}")
    return VARIANTS[name]


def check_options(family, names):
    """Raises `ValueError` where a name is no argument of a family; it has the nearest.

    Args:
        family: the class.
        names: of arguments.
    """
    known = inspect.signature(family).parameters
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2) or sorted(known)
            raise ValueError(
                f"{family.__name__} has no such option; choose {' or '.join(near)}. "
                f"Received: {name!r}"
            )


def create_model(name, num_classes=None, input_shape=None, **overrides):
    """Builds an architecture by name, with fresh weights.

    Args:
        name: one of `list_models()`.
        num_classes: classes of the head; `None`: the variant's own, mostly 1000.
        input_shape: `(H, W, C)`; `None`: the variant's own.
        **overrides: further arguments of the family's class.

    Returns:
        A functional `keras.Model` named after the architecture.

    Raises:
        ValueError: an unknown name; the message names the nearest.
    """
    family, arguments = variant(name)
    arguments = {"name": name, **arguments, **overrides}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    if input_shape is not None:
        arguments["input_shape"] = input_shape
    return family(**arguments)
