"""Why a state does not fit a model, in one short paragraph with the remedy."""

import os
from typing import Any

import keras

from kmlp.errors import InputError
from kmlp.weights.matching import CLASSIFIER, match
from kmlp.weights.names.dense_schemes import classifier_of
from kmlp.weights.readers.checkpoint_forms import read_state
from kmlp.weights.recognition import as_options, recognise

# How many of many names are listed, and how many where the state is another thing.
_NAMED, _FEW = 5, 2


def misfit(model, state, found, received):
    """The message for a state that does not fit.

    Args:
        model: of one of the families.
        state: `{published name: array}`.
        found: the `kmlp.weights.matching.Match` of both.
        received: what the user passed.

    Returns:
        A text that ends in "Received: …".
    """
    reason = _classifier_alone(model, found) or _whole(model, state, found)
    return f"{reason}. Received: {received}"


def _classifier_alone(model, found):
    """The reason where only the classifier is amiss, else `None`."""
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
    """What the state seems to be and how to build that, where it is another thing."""
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
    """The images whose token grid the spatial kernels cover."""
    config = model.get_config()
    if config.get("block_size") is None:
        return config["input_shape"]
    sides = [config["patch_size"] * size for size in config["block_size"]]
    return (*sides, config["input_shape"][2])


def _plain(value):
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def load_published(
    model: keras.Model,
    source: str | os.PathLike | dict[str, Any],
    *,
    new_head: bool = False,
    key: str | None = None,
) -> keras.Model:
    """Fills a model with a published state; every array and variable exactly once.

    Without a head (`include_top=False`) or classifier (`num_classes=0`) in the model,
    the state's is left out. Buffers that nothing learned are passed over: PyTorch's
    `num_batches_tracked` and the masks and indices of Swin and Focal transformers.

    Args:
        model: `RepMLPNet` (with `locality_injected=True` for the merged form that
            circulates), `ResMLP`, `ConvMLP`, `MSMLP`, `SMLPNet`, `SwinTransformer` or
            `FocalTransformer`, with the published structure; or over one of them a
            `RetinaNet`, `MaskRCNN`, `SemanticFPN` or `UperNet`.
        source: path of a PyTorch, `.safetensors`, `.npz` or HDF5 file, or a mapping of
            published names to arrays. PyTorch files are read without executing what
            they pickle. timm's names of ResMLP and Swin and mmpretrain's of RepMLPNet
            are known too; of detectors mmdetection's, of segmenters mmsegmentation's.
        new_head: whether the classifier stays as it is in the model, for classes of
            one's own or a state without one; everything else is loaded strictly, the
            head's norm too. A detector keeps all that it predicts for each class.
        key: which of several states of a file, as `kmlp.weights.read_state` has it,
            such as `"model_ema"`.

    Returns:
        The model.

    Raises:
        InputError: a missing, surplus or misshapen array; the message names what the
            state seems to be, and some of the names on both sides. No variable has been
            changed then. Or a model that is none of the families.
        OSError: a file that is not there.
    """
    is_file = isinstance(source, (str, os.PathLike))
    if key is not None and not is_file:
        raise InputError(
            "`key` chooses among the states of a file; of a mapping pass the part "
            f"itself. Received: key={key!r} with {type(source).__name__}"
        )
    state = read_state(source, key) if is_file else dict(source)
    found = match(model, state, new_head=new_head)
    if not found.is_complete:
        received = source if is_file else f"{len(state)} arrays"
        raise InputError(misfit(model, state, found, received))
    found.assign()
    return model
