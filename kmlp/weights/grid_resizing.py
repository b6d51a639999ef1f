"""Trained models for images of other sizes."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kmlp.errors import InputError, check_choice
from kmlp.layers.layer import assign, host
from kmlp.models.dense import DenseModel
from kmlp.models.repmlpnet import DOWNSAMPLINGS
from kmlp.models.vision_mlp import VisionMLP, token_grid

# Word -> method of interpolation, where kernels have to be.
RESOLUTIONS = {
    "interpolate": "linear",
    "interpolate_cubic": "cubic",
    "partition": "linear",
}

# The ways to bring a network to another size, by `resolution`.
WAYS = {
    None: "its weights fit any size",
    "interpolate": "spatial kernels interpolated",
    "interpolate_cubic": "spatial kernels interpolated cubically",
    "partition": "maps cut into blocks of the trained grid",
}


def resize(
    model: keras.Model,
    input_shape: tuple[int | None, ...],
    resolution: str = "interpolate",
) -> keras.Model:
    """Return the same trained network for images of another size.

    ConvMLP, MS-MLP, Swin transformers and their hybrids take any size with the weights
    they have, Focal transformers the sizes that their windows tile. The others have
    kernels over a grid of positions, which either are interpolated to the grid of the
    new images or stay, the maps being cut into blocks of the trained grid.

    Args:
        model: Network of one of the families, or a detector or segmenter over one, in
            train form; it is left untouched.
        input_shape: Shape `(H, W, C)`, at least a patch; `(None, None, C)` for the
            families that take any size.
        resolution: Treatment of the resolution. `"interpolate"`: kernels over positions
            become `W' = Up W Down` with linear resize matrices, biases `Up b`, and
            cover the whole image. Norms, local branches and all else that knows no
            positions stay. `"interpolate_cubic"`: the same with cubic ones, which blur
            less. `"partition"`: kernels stay; what the blocks do not tile is padded
            with zeros and cropped. (A trained grid that cannot be halved from stage to
            stage is rounded up, and its kernels interpolated.)

    Returns:
        A new model of the same class and configuration, with the same dtype policy,
        frozen layers, preprocessing (for the new size, where that is square) and class
        names. Its own size gives a copy, equal bit for bit.

    Raises:
        InputError: If this is no model of the library in train form, `resolution` is
            unknown, or the size does not fit.

    Reference: RepMLPNet Sect. 5.3, for blocks.
    """
    check_choice(RESOLUTIONS, resolution=resolution)
    if isinstance(model, DenseModel):
        return _resized_dense(model, input_shape, resolution)
    if not isinstance(model, VisionMLP):
        raise InputError(
            "resize() takes a model of one of the library's families in train form, "
            "which knows its configuration: resize before merging, and resize a "
            "backbone before it becomes part of another model. "
            f"Received: {getattr(model, 'name', model)!r}, a {type(model).__name__}"
        )
    channels = model.input_shape[-1]
    if len(input_shape) != 3 or input_shape[2] != channels:
        raise InputError(
            f"`input_shape` is (height, width, channels), with the model's {channels} "
            f"channels. Received: input_shape={tuple(input_shape)}"
        )
    config = {**model.get_config(), "input_shape": tuple(input_shape)}
    if "block_size" in config:
        config["block_size"] = _block(model, config["input_shape"], resolution)
    twin = type(model).from_config(config)
    _transfer(model, twin, **_way(model, twin, resolution))
    _describe(model, twin)
    return twin


def _resized_dense(model, input_shape, resolution):
    """Return a detector or segmenter over its backbone at another size."""
    config = model.get_config()
    backbone = keras.saving.deserialize_keras_object(config["backbone"])
    if not isinstance(backbone, VisionMLP):
        raise InputError(
            "resize() takes detectors and segmenters over backbones of this library. "
            f"Received: {model.name!r} over a {type(backbone).__name__}"
        )
    resized = resize(backbone, input_shape, resolution)
    config["backbone"] = keras.saving.serialize_keras_object(resized)
    twin = type(model).from_config(config)
    _transfer(model, twin, **_way(backbone, resized, resolution))
    _describe(model, twin)
    return twin


def _way(source, target, resolution):
    """Return how kernels over positions come from one network to the other."""
    if not hasattr(source, "block_size"):
        return {}

    def steps(extent: Callable[[Any], Sequence[float]]) -> list[float]:
        return [own / new for own, new in zip(extent(source), extent(target))]

    return {
        "method": RESOLUTIONS[resolution],
        "steps": steps(_extent),
        "image_steps": steps(lambda model: model.input_shape[1:3]),
    }


def _block(model, input_shape, resolution):
    """Return the new model's `block_size`."""
    patch = model.patch_size
    if input_shape == model.input_shape[1:]:
        return model.block_size
    if None in input_shape:
        return None  # the constructor's complaint
    if min(input_shape[:2]) < patch:
        raise InputError(
            f"Images must be at least as large as a patch of {patch}x{patch} pixels. "
            f"Received: input_shape={input_shape}"
        )
    halvings = 2 ** (len(model.pyramid_outputs) - 1)
    grid = token_grid(input_shape, patch)
    if resolution == "partition":
        trained = model.block_size or token_grid(model.input_shape[1:], patch)
        # Blocks of several stages lie in one another where they halve exactly.
        return tuple(
            t if t >= g else -(-t // halvings) * halvings for t, g in zip(trained, grid)
        )
    divides = all(size % (patch * halvings) == 0 for size in input_shape[:2])
    return None if divides else grid


def _extent(model):
    """Return the pixels that kernels cover: the image, or a block of whole patches."""
    size, patch = model.input_shape[1:3], model.patch_size
    grid = token_grid(size, patch)
    block = model.block_size or grid
    return [s if b == g else b * patch for s, g, b in zip(size, grid, block)]


def _transfer(source, target, **way):
    """Copy weights and frozen state, layer by layer.

    A layer whose weights know positions has a method `resize_from(layer, method,
    steps)`, which takes those of a layer alike for another grid; its parts are walked
    like any layer's. With `covers_map` its grid is the image's, whatever the blocks.
    """
    target.trainable = source.trainable
    if hasattr(target, "resize_from"):
        own = {k: way[k] for k in ("method", "steps") if k in way}
        if way and getattr(target, "covers_map", False):
            own["steps"] = way["image_steps"]
        target.resize_from(source, **own)
    else:
        for kind in ("_trainable_variables", "_non_trainable_variables"):
            variables = getattr(target, kind), getattr(source, kind)
            for new, old in zip(*variables, strict=True):
                new.assign(old)
    for old, new in zip(source._layers, target._layers, strict=True):
        _transfer(old, new, **way)


def _describe(source, target):
    """Copy what a model knows of its images and its origin."""
    height, width = target.input_shape[1:3]
    known = source.preprocessing
    if known is not None:
        known = known.for_size(height, width)
    target.preprocessing, target.weights_source = known, source.weights_source


def communicating(model: Any, downsample: str) -> tuple[keras.Model, float]:
    """Return a RepMLPNet whose 2×2 embeddings are the nearest convolutions.

    Of each output the C×4 kernel of the embedding becomes its nearest product of one
    weight per channel, of the 1×1 convolution, and one per position, of the depthwise
    one; positions outside the old patch begin at zero. Everything else is kept.

    Args:
        model: RepMLPNet in train form with `downsample="patch"`; it is left untouched.
        downsample: Downsampling, `"conv3"` or `"conv5"`.

    Returns:
        The new model, and the share of the embeddings' squared weights that is kept,
        in 0…1.

    Raises:
        InputError: If the model is of another family, or its embeddings are
            convolutions already.

    Reference: RepMLPNet, Appendix B, has the structure; the published embeddings
    cannot be mapped onto it exactly.
    """
    own = getattr(model, "downsample", None)
    if own != "patch" or downsample not in DOWNSAMPLINGS:
        raise InputError(
            "A RepMLPNet with 2x2 embeddings becomes one with conv3 or conv5. "
            f"Received: downsample={downsample!r} for {model.name!r} with {own!r}"
        )
    twin = type(model).from_config({**model.get_config(), "downsample": downsample})
    kept = whole = 0.0
    ours = {layer.name: layer for layer in twin.layers}
    for layer in model.layers:
        if layer.name in ours:
            ours[layer.name].set_weights(layer.get_weights())
            continue
        expand = ours[f"{layer.name}_expand"]
        reduce = ours[f"{layer.name}_reduce"]
        kernel = host(layer.dense.kernel)
        channels, positions = _factors(kernel)
        # Positions have the norm 1: the channels' is that of the product.
        kept += float(np.sum(np.square(channels)))
        whole += float(np.sum(np.square(kernel)))
        assign(expand.conv, kernel=channels[None, None])
        size = DOWNSAMPLINGS[downsample]
        spread = np.zeros((size, size, positions.shape[-1], 1))
        centre = size // 2
        spread[centre : centre + 2, centre : centre + 2, :, 0] = positions
        assign(reduce.conv, kernel=spread)
        reduce.normalize.set_weights(layer.normalize.get_weights())
    twin.preprocessing, twin.weights_source = model.preprocessing, model.weights_source
    return twin, kept / max(whole, 1e-30)


def _factors(kernel):
    """Factor `(4C, O)` into weights of channels `(C, O)` and positions `(2, 2, O)`."""
    outputs = kernel.shape[-1]
    # (2·2·C, O) -> (O, 4, C)
    matrices = kernel.reshape(4, -1, outputs).transpose(2, 0, 1)
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    positions, channels = left[:, :, 0], right[:, 0] * values[:, :1]
    # Of the two signs, take the one by which the positions add up.
    sign = np.where(positions.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    positions, channels = positions * sign, channels * sign
    return channels.T, positions.T.reshape(2, 2, outputs)
