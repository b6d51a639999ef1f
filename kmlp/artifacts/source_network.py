"""Compare a converted network with the network that its file was saved from."""

from typing import Any, NamedTuple

import keras
import numpy as np

from kmlp.errors import InputError
from kmlp.pytorch.counterparts import counterpart
from kmlp.pytorch.timm_resmlp import timm_mlp_mixer, timm_resmlp
from kmlp.weights.renamings import SCHEMES
from kmlp.weights.scheme import derived
from kmlp.weights.strict_loading import CLASSIFIER, match

IMAGES = 2


class Comparison(NamedTuple):
    """The distance of a model from its source network.

    Attributes:
        difference: Largest difference of the outputs, over the largest output.
        network: Whose code the source network is.
    """

    difference: float
    network: str


def compare(
    model: keras.Model, state: dict[str, np.ndarray], scheme: Any
) -> Comparison:
    """Compare a model with the network that its file was saved from.

    The source network is PyTorch's under the file's names (timm's own for timm's), and
    takes the file's state strictly. Where the model has another classifier than the
    file, or none, what a classifier would see is compared.

    Args:
        model: Model with the state's weights.
        state: Arrays by their published names.
        scheme: Scheme of the names, a `kmlp.weights.scheme.Scheme`.

    Raises:
        InputError: If there is nothing to compare, or an option that the published
            code lacks.
        ImportError: If PyTorch is not installed.
    """
    classes = _classes(model, state, scheme)
    ours = _comparable(model, state, classes)
    network, whose = _source_network(ours, state, scheme, classes)
    height, width, channels = ours.inputs[0].shape[1:]
    shape = (IMAGES, height or 224, width or 224, channels)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = _outputs(network, images)
    if not np.ptp(expected, axis=0).any():
        raise InputError(
            "The source network answers all images alike, as with a classifier that "
            "was never trained: --check has nothing to compare; leave it out. "
            f"Received: {len(state)} arrays"
        )
    actual = keras.ops.convert_to_numpy(ours(images, training=False))
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    return Comparison(float(difference), whose)


def _classes(model, state, scheme):
    """Return the classes of the state's classifier, 0 where it has none."""
    paths = scheme.ours(state, getattr(model, "depths", None))
    kernels = [n for n, path in paths.items() if path == f"{CLASSIFIER}kernel"]
    return len(state[kernels[0]]) if kernels else 0


def _comparable(model, state, classes):
    """Return the model with logits, or features where the classifier is another.

    What the model has is compared; what it lacks of the head comes from the state.
    """
    kept = model.include_top and model.num_classes == classes
    config = {
        **model.get_config(),
        "include_top": True,
        "num_classes": classes if kept else 0,
        "head_activation": None,
    }
    twin = type(model).from_config(config)
    fit = match(twin, state)
    if not fit.is_complete:
        raise InputError(
            "--check compares what is behind the head's norm, and the state has none: "
            f"leave it out. Received: {len(state)} arrays"
        )
    fit.assign()
    own = {variable.path: variable for variable in model.weights}
    for variable in twin.weights:
        if variable.path in own:
            variable.assign(own[variable.path])
    return twin


def _source_network(model, state, scheme, classes):
    """Return the network with the file's state, and whose it is.

    It has a classifier where ours has one. Names of another than the authors become
    theirs, but for timm's where timm is.
    """
    from torch import nn

    network = _timm(model, classes) if scheme.name == "timm" else None
    whose = "timm's" if network is not None else "the published"
    if network is None:
        network = counterpart(model, num_classes=classes or 1)
        state = _as_authors(model, state, scheme, network)
    classifier = "mlp_head" if hasattr(network, "mlp_head") else "head"
    if not classes:
        setattr(network, classifier, nn.Identity())
    _load(network, state)
    if not model.num_classes:
        setattr(network, classifier, nn.Identity())
    return network, whose


def _timm(model, classes):
    """Return timm's network, `None` where it is the authors' or timm is missing."""
    if type(model).__name__ != "ResMLP":
        return None
    config = model.get_config()
    build, mlp_ratio = timm_resmlp, config["mlp_ratio"]
    if config["mixing"] == "mlp":
        # A hair more, as what timm makes of its ratio is cut off.
        tokens = (config["mixing_width"] + 0.5) / config["width"]
        build, mlp_ratio = timm_mlp_mixer, (tokens, mlp_ratio)
    try:
        return build(
            img_size=config["input_shape"][:2],
            patch_size=config["patch_size"],
            embed_dim=config["width"],
            num_blocks=config["depth"],
            mlp_ratio=mlp_ratio,
            num_classes=classes,
        )
    except ImportError:
        return None


def _as_authors(model, state, scheme, network):
    """Return the state in the names and shapes that the authors' network has."""
    authors = SCHEMES[type(model)][0]
    names = {name for name in state if not derived(name)}
    if scheme is authors or names == network.state_dict().keys():
        return state
    depths = getattr(model, "depths", None)
    ours = scheme.ours(state, depths)
    theirs = authors.theirs(ours.values(), depths)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    names = {name: theirs[path][0] for name, path in ours.items()}
    return {names[name]: state[name].reshape(shapes[names[name]]) for name in names}


def _load(network, state):
    import torch

    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in state.items()
        if not derived(name)
    }
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(
            "The source network does not take this state, though ours does: leave "
            f"--check out, and report it. Received: {error}"
        ) from error
    network.float().eval()


def _outputs(network, images):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
