"""What a published state seems to be, by its names and shapes alone."""

import dataclasses
import inspect

import numpy as np

from kmlp.errors import InputError
from kmlp.models.registry import VARIANTS, create_model
from kmlp.weights.matching import derived
from kmlp.weights.names.renamings import SCHEMES
from kmlp.weights.names.structure import structure

# What does not make a variant: head, size, and whether locality is injected yet.
_FREE = ("num_classes", "include_top", "input_shape", "locality_injected")


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What a state seems to be.

    Attributes:
        architecture: a name of `kmlp.list_models()`, or `None` where no variant fits.
        family: the class.
        scheme: whose names the state has: `"published"` (the authors'), `"timm"`,
            `"mmpretrain"` or `"mmcls"`.
        arguments: of `kmlp.create_model(architecture, …)` or, where no variant fits,
            of `family(…)`. `num_classes` is 0 where there is no classifier;
            `input_shape` is left out where no array depends on it.
        structure: all arguments of `family` that the shapes tell.
    """

    architecture: str | None
    family: type
    scheme: str
    arguments: dict
    structure: dict

    def build(self, **changes):
        """The model with fresh weights, with `changes` to its arguments."""
        arguments = {**self.arguments, **changes}
        if self.architecture is None:
            return self.family(**arguments)
        return create_model(self.architecture, **arguments)

    def __str__(self):
        what = self.architecture
        if what is None:
            parameters = inspect.signature(self.family).parameters
            own = {
                name: value
                for name, value in self.structure.items()
                if name not in _FREE and value != parameters[name].default
            }
            what = f"{self.family.__name__}({as_options(own)})"
        return f"{what} ({self.scheme} names)"


def as_options(arguments):
    """Arguments as a person writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def recognise(state):
    """What a published state seems to be: family, naming, variant and arguments.

    Only names and shapes are read, and no model is built. What shapes do not tell
    (the initial layer scale, shift distances, …) keeps its default.

    Args:
        state: `{published name: array}`.

    Returns:
        A `Recognised`.

    Raises:
        InputError: its names are of no family known.
    """
    shapes = {name: np.shape(a) for name, a in state.items() if not derived(name)}
    tables = [
        (family, scheme, scheme.ours(shapes))
        for family, schemes in SCHEMES.items()
        for scheme in schemes
    ]
    # Families share some names: the one that shares most is meant.
    for family, scheme, ours in sorted(tables, key=lambda table: -len(table[2])):
        if 2 * len(ours) <= len(shapes):
            break
        told = structure(family, {path: shapes[name] for name, path in ours.items()})
        if told is not None:
            name = _variant(family, told)
            arguments = {k: v for k, v in told.items() if name is None or k in _FREE}
            return Recognised(name, family, scheme.name, arguments, told)
    raise InputError(
        "The state is of no family that kmlp knows: its names are neither the authors' "
        f"nor timm's nor mmpretrain's. Received: {len(state)} arrays, such as "
        f"{', '.join(sorted(map(str, state))[:3]) or 'none'}"
    )


def _variant(family, told):
    """The name of the variant with such a structure, `None` where there is none."""
    parameters = inspect.signature(family).parameters

    def own(name, argument):
        return VARIANTS[name][1].get(argument, parameters[argument].default)

    names = [
        name
        for name, (variant_family, _) in VARIANTS.items()
        if variant_family == family.__name__
        and all(own(name, k) == v for k, v in told.items() if k not in _FREE)
    ]
    # Some differ in their size alone; any size is of the first otherwise.
    shape = told.get("input_shape")
    return min(names, key=lambda name: own(name, "input_shape") != shape, default=None)
