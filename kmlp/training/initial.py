"""The weights that a run starts from, in place of fresh ones."""

import dataclasses
import hashlib
import json
import zipfile

import numpy as np
from keras import ops

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
        arguments: of the family's class, as the weights have them.
        arrays: `{name: array}` without the classifier where that is new.
        described: what the run's files say of them; `sha256` is of their values.
        text: what the person reads of them.
    """

    arguments: dict
    arrays: dict
    described: dict
    text: str

    @property
    def identity(self):
        """What of them decides the result of a run: not where they lie."""
        names = ("sha256", "image_size", "resolution", "new_head")
        return {name: self.described[name] for name in names}

    def fill(self, model, engine):
        """Gives a network the weights, on all workers those of the chief.

        Args:
            model: of these arguments, made in the engine's scope.
            engine: on whose devices it lies.

        Raises:
            InputError: a worker found other weights than the chief.
        """
        mark = hashlib.sha256(self.described["sha256"].encode()).digest()
        mark = np.frombuffer(mark, "uint8").astype("int32")
        if engine.any(not np.array_equal(mark, engine.broadcast(mark))):
            raise InputError(
                "The workers found different weights: give all of them the same file. "
                f"Received: {self.described['name']!r}, on this one of SHA-256 "
                f"{self.described['sha256'][:12]}…"
            )
        variables, arrays = self.pairs(model)
        for variable, array in zip(variables, engine.broadcast_all(arrays)):
            engine.assign(variable, array)

    def pairs(self, model):
        """Return the variables of a network that begin with weights, and these."""
        named = weight_names(model)
        variables = [v for name, v in named.items() if name in self.arrays]
        arrays = [self.arrays[name] for name in named if name in self.arrays]
        return variables, arrays


def settle(options):
    """Finds the weights of the command line, and the architecture that they tell.

    Reads as little as that takes: devices and other workers come later. A tag behind
    `--arch` becomes `--weights`.

    Raises:
        InputError: weights that are not there or damaged, or do not tell what they are
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
    """The architecture that a file tells; `None` where it does not."""
    if found.path.name.endswith(KERAS_WEIGHTS):
        return None
    if not found.path.name.endswith(KERAS):
        return recognise(read_state(found.path)).architecture
    try:
        with zipfile.ZipFile(found.path) as archive:
            return json.loads(archive.read("config.json"))["config"]["name"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "This checkpoint is damaged: copy it again, or save the model again. "
            f"Received: {str(found.path)!r} ({first_line(error)[:200]})"
        ) from error


def open_initial(options, arguments):
    """The network of the weights as they are, on this process alone.

    Args:
        options: of the command line, settled.
        arguments: of the family's class, as the command line sets them.

    Returns:
        A `VisionMLP` with `preprocessing`, at the size that it was trained at.

    Raises:
        InputError: weights that cannot be read or are of another architecture, or none
            that can be trained further.
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


def initial_weights(model, options, image_size, class_names):
    """A loaded network's weights, as a run begins with them.

    The classifier is kept where its classes are known to be those of the data.

    Args:
        model: as `open_initial` gives it.
        options: of the command line.
        image_size: height and width that the run's network sees.
        class_names: of the data.

    Raises:
        InputError: they cannot be brought to this size.
    """
    shape = (image_size, image_size, 3)
    own = tuple(model.inputs[0].shape[1:])
    resolution = options.resolution or INTERPOLATE
    same = own == shape or not hasattr(model, "block_size")
    described = {
        "name": str(options.weights),
        "architecture": model.name,
        "sha256": weights_sha256(model),
        "image_size": list(own[:2]),
        "resolution": None if same else resolution,
    }
    head, described["new_head"] = _head(model, class_names)
    if model.weights_source is not None:
        described["source"] = model.weights_source
    if own != shape:
        try:
            model = resize(model, shape, resolution)
        except ValueError as error:
            raise InputError(f"--weights: {error}") from error
    kept = {
        name: np.array(ops.convert_to_numpy(variable))
        for name, variable in weight_names(model).items()
        if not (described["new_head"] and name.startswith(CLASSIFIER))
    }
    config = model.get_config()
    arguments = {k: v for k, v in config.items() if k not in (*RESERVED, "trainable")}
    return Initial(arguments, kept, described, _text(described, image_size, head))


def _head(model, class_names):
    """What becomes of the classifier, in words, and whether it is new."""
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


def _text(described, image_size, head):
    at = "x".join(str(side or "any") for side in described["image_size"])
    size = f"{image_size}x{image_size}"
    if size != at:
        at += f", for {size} ({WAYS[described['resolution']]})"
    return f"Starts from {described['name']} at {at}; {head}"
