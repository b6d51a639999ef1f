"""Fine-tuning: the weights that a run begins with, and the parts that keep them.

A frozen part runs as in inference: BatchNorm takes its moving statistics and leaves
them as they are, and stochastic depth drops nothing.
"""

import argparse
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.artifacts import keras_file
from kmlp.artifacts.origin import weights_sha256
from kmlp.console import first_line
from kmlp.errors import InputError
from kmlp.models.registry import list_models
from kmlp.models.vision_mlp import VisionMLP
from kmlp.pretrained.creation import create_model
from kmlp.pretrained.found import KERAS, KERAS_WEIGHTS, find
from kmlp.training.engine.weight_names import weight_names
from kmlp.training.networks import RESERVED, check
from kmlp.weights.checkpoint_forms import read_state
from kmlp.weights.grid_resizing import WAYS, resize
from kmlp.weights.recognition import recognise
from kmlp.weights.strict_loading import CLASSIFIER

INTERPOLATE = "interpolate"


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights at the size of a run, ready for its network.

    Attributes:
        arguments: Arguments of the family's class, as the weights have them.
        arrays: Arrays by name, without the classifier where that is new.
        described: What the run's files say of them; `sha256` is of their values.
        text: Line for the person at the terminal.
    """

    arguments: dict[str, Any]
    arrays: dict[str, np.ndarray]
    described: dict[str, Any]
    text: str

    @property
    def identity(self) -> dict[str, Any]:
        """Return what decides the result of a run: not where the weights lie."""
        names = ("sha256", "image_size", "resolution", "new_head")
        return {name: self.described[name] for name in names}

    def fill(self, model: keras.Model, engine: Any) -> None:
        """Give a network the weights, on all workers those of the chief.

        Args:
            model: Network of these arguments, made in the engine's scope.
            engine: Engine on whose devices it lies.
        """
        variables, arrays = self.pairs(model)
        for variable, array in zip(variables, engine.broadcast_all(arrays)):
            engine.assign(variable, array)

    def pairs(self, model: keras.Model) -> tuple[list, list[np.ndarray]]:
        """Return the variables of a network that begin with weights, and these."""
        named = weight_names(model)
        variables = [v for name, v in named.items() if name in self.arrays]
        arrays = [self.arrays[name] for name in named if name in self.arrays]
        return variables, arrays


def settle(options: argparse.Namespace) -> None:
    """Find the weights of the command line, and the architecture that they tell.

    Reads as little as that takes: devices and other workers come later. A tag behind
    `--arch` becomes `--weights`.

    Raises:
        InputError: If weights are not there or damaged, or do not tell what they are
            of.
    """
    if options.arch is not None and "." in options.arch:
        if options.weights is not None:
            raise InputError(
                "Weights are named once: behind --arch or by --weights. Received: "
                f"--arch {options.arch} --weights {options.weights}"
            )
        options.arch, _, options.weights = options.arch.partition(".")
    if options.weights is None:
        return
    try:
        found = find(options.arch, options.weights)
        told = found.architecture or _told(found)
    except (ValueError, OSError) as error:
        raise InputError(f"--weights: {error}") from error
    if told is None or (options.arch is None and told not in list_models()):
        raise InputError(
            "These weights do not say which architecture they are of: pass --arch. "
            f"Received: --weights {options.weights}"
            + (f", of a network named {told!r}" if told else "")
        )
    options.arch = told


def _told(found):
    """Return the architecture that a file tells; `None` where it does not."""
    if found.path.name.endswith(KERAS_WEIGHTS):
        return None
    if not found.path.name.endswith(KERAS):
        return recognise(read_state(found.path)).architecture
    try:
        return keras_file.read_json(found.path, keras_file.CONFIG)["config"]["name"]
    except (KeyError, TypeError) as error:
        raise InputError(
            "This checkpoint is damaged: copy it again, or save the model again. "
            f"Received: {str(found.path)!r} ({first_line(error)[:200]})"
        ) from error


def open_initial(options: argparse.Namespace, arguments: dict[str, Any]) -> VisionMLP:
    """Open the network of the weights as they are, on this process alone.

    Args:
        options: Options of the command line, settled.
        arguments: Arguments of the family's class, as the command line sets them.

    Returns:
        A network with `preprocessing`, at the size that it was trained at.

    Raises:
        InputError: If weights cannot be read, are of another architecture or cannot be
            trained further.
    """
    if options.local_kernels is not None:
        arguments = {**arguments, "local_kernels": options.local_kernels}
    check(options.arch, arguments)
    try:
        model = create_model(options.arch, weights=options.weights, **arguments)
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"--weights: {error}") from error
    if not isinstance(model, VisionMLP):
        raise InputError(
            "Training goes on from a train form, and this is none of the families "
            "(merged, or of another class): pass the run's trained.keras. Received: "
            f"--weights {options.weights}, a {type(model).__name__}"
        )
    return model


def described(
    model: keras.Model, options: argparse.Namespace, **further: Any
) -> dict[str, Any]:
    """Return what a run's files say of the weights that it begins with.

    Args:
        model: Network of the weights.
        options: Options of the command line.
        **further: Entries `resolution` and `new_head`.
    """
    known = {
        "name": str(options.weights),
        "architecture": model.name,
        "sha256": weights_sha256(model),
        "image_size": list(model.inputs[0].shape[1:3]),
        **further,
    }
    if getattr(model, "weights_source", None) is not None:
        known["source"] = model.weights_source
    return known


def initial_weights(
    model: VisionMLP,
    options: argparse.Namespace,
    image_size: int,
    class_names: Sequence[str],
) -> Initial:
    """Return a loaded network's weights as a run begins with them.

    The classifier is kept where its classes are known to be those of the data.

    Args:
        model: Network from `open_initial`.
        options: Options of the command line.
        image_size: Height and width that the run's network sees.
        class_names: Classes of the data.

    Raises:
        InputError: If they cannot be brought to this size.
    """
    shape = (image_size, image_size, 3)
    same = tuple(model.inputs[0].shape[1:]) == shape
    resolution = options.resolution or INTERPOLATE
    known = None if same or not hasattr(model, "block_size") else resolution
    head, new_head = _head(model, class_names)
    said = described(model, options, resolution=known, new_head=new_head)
    if not same:
        try:
            model = resize(model, shape, resolution)
        except ValueError as error:
            raise InputError(f"--weights: {error}") from error
    kept = {
        name: np.array(ops.convert_to_numpy(variable))
        for name, variable in weight_names(model).items()
        if not (new_head and name.startswith(CLASSIFIER))
    }
    config = model.get_config()
    arguments = {k: v for k, v in config.items() if k not in (*RESERVED, "trainable")}
    at = "x".join(str(side or "any") for side in said["image_size"])
    size = f"{image_size}x{image_size}"
    if size != at:
        at += f", for {size} ({WAYS[known]})"
    text = f"Starts from {options.weights} at {at}; {head}"
    return Initial(arguments, kept, said, text)


def _head(model, class_names):
    """Return what becomes of the classifier, in words, and whether it is new."""
    classes = len(class_names)
    own = model.num_classes if model.include_top else 0
    if own == classes and model.class_names is not None:
        if tuple(model.class_names) == tuple(class_names):
            return "the classes are theirs, and the head is kept", False
        why = "the weights know others"
    elif own == classes:
        why = "the weights do not name theirs"
    else:
        why = f"the weights' has {own:,}" if own else "the weights have none"
    return f"the head is new, for {classes:,} classes ({why})", True


ALL, NORM = "all", "norm"
_STAGES = {"stem": ("patch_embed",), "stage{k}": ("downsample{before}", "stage{k}_")}
# Family -> its parts from the images on, as beginnings of layers' names; {k} numbers
# the stages or blocks. What leads from one stage into the next belongs to the next,
# where its name does not say otherwise.
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "ConvMLP": {
        "stem": ("tokenizer_",),
        "conv_stage": ("conv_",),
        "stage{k}": ("stage{k}_",),
    },
    "FocalTransformer": _STAGES,
    "MSMLP": _STAGES,
    "RepMLPNet": {"stem": ("stem",), "stage{k}": ("embed{before}", "stage{k}_")},
    "ResMLP": {
        "stem": ("patch_embed", "position_encoding"),
        "block{k}": ("block{k}_",),
    },
    "SMLPNet": _STAGES,
    "SwinTransformer": _STAGES,
    "MSMLPHybrid": _STAGES,
}


def parts(model: VisionMLP) -> dict[str, list[keras.Layer]]:
    """Return the parts of a network in the order in which images pass through them.

    Returns:
        Layers by the name of their part; the last is `"norm"`, that of the head, where
        there is one.
    """
    found = {}
    for name, beginnings in PARTS[type(model).__name__].items():
        numbers = range(len(model.layers)) if "{k}" in name else [0]
        for k in numbers:
            starts = tuple(b.format(k=k, before=k - 1) for b in beginnings)
            layers = [x for x in model.layers if x.name.startswith(starts)]
            if not layers and k == 0:
                continue  # a hybrid without stage zero
            if not layers:
                break
            found[name.format(k=k)] = layers
    norms = [x.normalize for x in model.layers if x.name == "head"]
    return {**found, NORM: norms} if any(norms) else found


def chosen(text: str, model: VisionMLP) -> tuple[str, ...]:
    """Return the names of the parts that `--freeze` stands for, in the network's order.

    Args:
        text: Choice of layers. `"all"`: everything but the classifier; a number N: the
            stem and the first N stages, of ResMLP blocks; or names with commas between
            them.
        model: Network of one of the families.

    Raises:
        InputError: If there are fewer stages, or no such part.
    """
    known = list(parts(model))
    stages = [name for name in known if name not in ("stem", NORM)]
    if text == ALL:
        return tuple(known)
    if re.fullmatch(r"\d+", text):
        if int(text) > len(stages):
            raise InputError(
                f"{model.name} has {len(stages)} stages: freeze at most so many, or "
                f"{ALL} but the classifier. Received: --freeze {text}"
            )
        return ("stem", *stages[: int(text)])
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(known):
        raise InputError(
            f"--freeze takes {ALL}, a number of stages, or names of {model.name}'s "
            f"parts: {', '.join(known)}. Received: --freeze {text}"
        )
    return tuple(name for name in known if name in names)


def freeze(model: VisionMLP, names: Iterable[str]) -> None:
    """Freeze parts of a network, before an optimizer is made for it."""
    found = parts(model)
    for layer in [layer for name in names for layer in found[name]]:
        layer.trainable = False
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # of stochastic depth
