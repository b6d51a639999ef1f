"""Load a published state into a model: what fits, what does not, and why."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kmlp.errors import InputError
from kmlp.typing import PathLike
from kmlp.weights.checkpoint_forms import read_state
from kmlp.weights.recognition import as_options, recognise
from kmlp.weights.renamings import SCHEMES, classifier_of, depths_of, schemes_of
from kmlp.weights.scheme import Scheme, converted, derived

# Networks that only their paper has.
_NEVER_PUBLISHED = ("MSMLPHybrid",)
HEAD, CLASSIFIER = "head/", "head/dense/"


@dataclasses.dataclass(frozen=True)
class Match:
    """A model's variables beside a state's arrays, by published names.

    Attributes:
        scheme: Naming scheme of the state.
        fitting: Pairs as `{name: (variable, array in our layout)}`.
        missing: Variables `{name: variable}` without an array.
        surplus: Names of arrays without a variable.
        misshapen: Pairs as `{name: (variable, the array's shape)}`.
        ignored: Names of derived buffers.
        left_out: Names of the state's head that the model has no use for.
        fresh: Variables `{name: variable}` of a new classifier, which keep their
            values.
    """

    scheme: Scheme
    fitting: dict[str, tuple[Any, np.ndarray]]
    missing: dict[str, Any]
    surplus: list[str]
    misshapen: dict[str, tuple[Any, tuple[int, ...]]]
    ignored: list[str]
    left_out: list[str]
    fresh: dict[str, Any]

    @property
    def is_complete(self) -> bool:
        """Return whether every array and every variable is used once."""
        return not (self.missing or self.surplus or self.misshapen)

    def assign(self) -> None:
        """Give the fitting arrays to their variables."""
        for variable, array in self.fitting.values():
            variable.assign(array)


def match(
    model: keras.Model, state: Mapping[str, Any], *, new_head: bool = False
) -> Match:
    """Compare a model with a state, by the naming scheme that knows most of it.

    Nothing is assigned.

    Args:
        model: Network of one of the families.
        state: Weights as `{published name: array}`.
        new_head: Whether the classifier keeps its values, whatever the state has.

    Raises:
        InputError: If the model is of no family or has parts that were never published.
    """
    schemes = schemes_of(model)
    if not schemes and type(model).__name__ in _NEVER_PUBLISHED:
        raise InputError(
            f"No weights of {type(model).__name__} were ever published: there are no "
            "names to load by. Files of your own load with `model.load_weights` or "
            f"`kmlp.create_model(weights=…)`. Received: {model.name!r}"
        )
    if not schemes:
        families = ", ".join(family.__name__ for family in SCHEMES)
        raise InputError(
            f"load_published() knows the published names of {families}, and of "
            "RetinaNet and MaskRCNN over them. "
            f"Received: {type(model).__name__}"
        )
    variables = {variable.path: variable for variable in model.weights}
    ignored = sorted(name for name in state if derived(name))
    state = {name: array for name, array in state.items() if not derived(name)}
    depths, classifier = depths_of(model), classifier_of(model)
    tables = [(s, s.theirs(variables, depths)) for s in schemes]
    # Schemes that know other variants of the family have nothing to say here.
    whole = [table for table in tables if variables.keys() <= table[1].keys()]
    scheme, named = max(
        whole or tables,
        key=lambda table: sum(name in state for name, _ in table[1].values()),
    )
    for path in variables:
        if path not in named:
            raise InputError(
                f"{model.name!r} has a structure that was never published: there is "
                f"no published name for {path}. Received: {model!r}"
            )
    fitting, missing, misshapen, fresh = {}, {}, {}, {}
    for path, (name, convert) in named.items():
        variable = variables[path]
        if new_head and path.startswith(classifier):
            fresh[name] = variable
        elif name not in state:
            missing[name] = variable
        elif (array := converted(state[name], variable, convert)) is None:
            misshapen[name] = variable, np.shape(state[name])
        else:
            fitting[name] = variable, array
    unused = sorted(state.keys() - fitting.keys() - misshapen.keys())
    paths = scheme.ours(unused, depths)
    spare = (HEAD, *classifier) if new_head else (HEAD,)
    heads = [name for name in unused if paths.get(name, "").startswith(spare)]
    return Match(
        scheme=scheme,
        fitting=fitting,
        missing=missing,
        surplus=[name for name in unused if name not in heads],
        misshapen=misshapen,
        ignored=ignored,
        left_out=heads,
        fresh=fresh,
    )


# How many of many names are listed, and how many where the state is another thing.
_NAMED, _FEW = 5, 2


def misfit(
    model: keras.Model, state: Mapping[str, Any], found: Match, received: object
) -> str:
    """Return the message for a state that does not fit; it ends in "Received: …".

    Args:
        model: Network of one of the families.
        state: Weights as `{published name: array}`.
        found: Comparison of both.
        received: Argument of the user.
    """
    reason = _classifier_alone(model, found) or _whole(model, state, found)
    return f"{reason}. Received: {received}"


def _classifier_alone(model, found):
    """Return the reason where only the classifier is amiss, else `None`."""
    missing = {v.path for v in found.missing.values()}
    misshapen = {v.path: shape for v, shape in found.misshapen.values()}
    paths = missing | misshapen.keys()
    classifier = classifier_of(model)
    if found.surplus or not all(path.startswith(classifier) for path in paths):
        return None
    if CLASSIFIER not in classifier:
        return (
            f"The state was made for other classes than {model.name!r}, which has "
            f"{model.num_classes}: pass new_head=True to keep what the model predicts "
            "of each class and load all else, or build the model for the state's"
        )
    if len(missing) == 2:
        return (
            "The state has no classifier, as after self-supervised training: pass "
            f"new_head=True to keep that of {model.name!r}, or build the model with "
            "num_classes=0"
        )
    classes = misshapen.get(f"{CLASSIFIER}bias", ())
    width = model.get_layer("head").dense.kernel.shape[0]
    if len(classes) != 1 or misshapen.get(f"{CLASSIFIER}kernel") != (*classes, width):
        return None
    classes = classes[0]
    return (
        f"The state's classifier has {classes} classes, that of {model.name!r} "
        f"{model.num_classes}: pass new_head=True to keep the model's own and load all "
        f"else, or build the model with num_classes={classes}"
    )


def _whole(model, state, found):
    sides = (
        (
            "missing from the state",
            [f"{name} (our {v.path})" for name, v in found.missing.items()],
        ),
        ("surplus in the state", found.surplus),
        (
            "of another shape",
            [
                f"{name} {shape} for {v.path} {tuple(v.shape)}"
                for name, (v, shape) in found.misshapen.items()
            ],
        ),
    )
    seeming = _seeming(model, state, found)
    count = _FEW if seeming else _NAMED
    listed = ". ".join(
        f"{title.capitalize()} ({len(rows)}): {_some(rows, count)}"
        for title, rows in sides
        if rows
    )
    return f"The state does not fit {model.name!r}{seeming}. {listed}"


def _some(rows, count):
    rows = sorted(rows)
    more = f" … and {len(rows) - count} more" if len(rows) > count else ""
    return "; ".join(rows[:count]) + more


def _seeming(model, state, found):
    """Say what the state seems to be and how to build it, if that is another thing."""
    try:
        seems = recognise(state)
    except ValueError:
        if 2 * len(found.fitting) > len(state):
            return ""  # it lacks what a network is told by
        return ": its names are of no family that kmlp knows"
    if seems.family is not type(model):
        return f": it seems to be {seems}"
    config = {**model.get_config(), "input_shape": _trained_size(model)}
    others = {
        name: value
        for name, value in seems.structure.items()
        if _plain(config[name]) != _plain(value)
    }
    has_classifier = model.include_top and model.num_classes
    if found.fresh or not has_classifier or "include_top" in others:
        others.pop("num_classes", None)  # the classifier is not what is amiss
    if not others:
        return ""
    resized = ", and bring that to another size with kmlp.resize()"
    return (
        f": it seems to be {seems}; build the model with {as_options(others)}"
        f"{resized if 'input_shape' in others else ''}"
    )


def _trained_size(model):
    """Return the shape of images whose token grid the spatial kernels cover."""
    config = model.get_config()
    if config.get("block_size") is None:
        return config["input_shape"]
    sides = [config["patch_size"] * size for size in config["block_size"]]
    return (*sides, config["input_shape"][2])


def _plain(value):
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def load_published(
    model: keras.Model,
    source: PathLike | Mapping[str, Any],
    *,
    new_head: bool = False,
    key: str | None = None,
) -> keras.Model:
    """Fill a model with a published state; every array and variable exactly once.

    Without a head (`include_top=False`) or classifier (`num_classes=0`) in the model,
    the state's is left out. Buffers that nothing learned are passed over: PyTorch's
    `num_batches_tracked` and the masks and indices of Swin and Focal transformers.

    Args:
        model: Network to fill: `RepMLPNet` (with `locality_injected=True` for the
            merged form that circulates), `ResMLP`, `ConvMLP`, `MSMLP`, `SMLPNet`,
            `SwinTransformer` or `FocalTransformer`, with the published structure; or
            over one of them a `RetinaNet`, `MaskRCNN`, `SemanticFPN` or `UperNet`.
        source: Path of a PyTorch, `.safetensors`, `.npz` or HDF5 file, or a mapping of
            published names to arrays. PyTorch files are read without executing what
            they pickle. timm's names of ResMLP and Swin and mmpretrain's of RepMLPNet
            are known too; of detectors mmdetection's, of segmenters mmsegmentation's.
        new_head: Whether the classifier stays as it is in the model, for classes of
            one's own or a state without one; everything else is loaded strictly, the
            head's norm too. A detector keeps all that it predicts for each class.
        key: Name of one of several states of a file, as `kmlp.weights.read_state`
            takes it, such as `"model_ema"`.

    Returns:
        The model.

    Raises:
        InputError: If an array is missing, surplus or misshapen; the message names what
            the state seems to be, and some of the names on both sides. No variable has
            been changed then. Also if the model is of none of the families.
        OSError: If there is no such file.
    """
    if isinstance(source, (str, os.PathLike)):
        state, received = read_state(source, key), source
    elif key is None:
        state, received = dict(source), f"{len(source)} arrays"
    else:
        raise InputError(
            "`key` chooses among the states of a file; of a mapping pass the part "
            f"itself. Received: key={key!r} with {type(source).__name__}"
        )
    found = match(model, state, new_head=new_head)
    if not found.is_complete:
        raise InputError(misfit(model, state, found, received))
    found.assign()
    return model
