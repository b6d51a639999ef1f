"""`create_model`: an architecture with the weights that were asked for."""

import os
from typing import Any

from kmlp import models
from kmlp.errors import InputError
from kmlp.models.configured import ConfiguredModel
from kmlp.models.registry import variant
from kmlp.models.vision_mlp import VisionMLP
from kmlp.pretrained import found as published
from kmlp.pretrained import restoring
from kmlp.pretrained.found import Found, find
from kmlp.weights.grid_resizing import communicating, resize


def create_model(
    name: str | None = None,
    num_classes: int | None = None,
    input_shape: tuple[int | None, ...] | None = None,
    *,
    weights: str | os.PathLike | None = None,
    resolution: str = "interpolate",
    **overrides: Any,
) -> Any:
    """Build an architecture by name, or a preset, with the weights asked for.

    ```python
    kmlp.create_model("resmlp_s12")  # fresh
    kmlp.create_model("resmlp_s12", weights="fb_distilled_in1k")  # published
    kmlp.create_model("resmlp_s12", 10, (288, 288, 3), weights="default")
    kmlp.create_model(weights="saved_models/convmlp_s")  # a run's, all of it
    ```

    Args:
        name: One of `list_models()`, also with a tag, `"resmlp_s12.fb_in1k"`; `None`:
            the one that `weights` hold.
        num_classes: Classes of the head; `None`: those of the weights, or else the
            variant's own, mostly 1000. Another number than the weights' makes a new
            head, and a line says so; 0: features without a classifier.
        input_shape: Shape `(H, W, C)`; `None`: the weights' own, or the variant's.
        weights: Weights to load. `None`: fresh ones; `"default"` or a tag of
            `list_weights()`, fetched once into Keras' cache; the path of a published
            file (`.pth`, `.safetensors`, `.npz`, `.h5`); of a `.keras` or `.weights.h5`
            file; or of a folder of a run or of `save_preset`.
        resolution: Treatment of weights of another size: `"interpolate"` or
            `"interpolate_cubic"` for spatial kernels of the new grid, or `"partition"`
            for the trained grid on blocks of the new one, as in `kmlp.resize`.
        **overrides: Further arguments of the family's class. With RepMLPNet's weights
            `downsample="conv3"` or `"conv5"` approximates their embeddings, and a line
            says how closely.

    Returns:
        A functional `keras.Model` named after the architecture, or the detector or
        segmenter that the weights are of. With weights it has their `preprocessing`,
        `class_names` and `weights_source`, as far as known.

    Raises:
        InputError: If a name or tag is unknown, a file is damaged or of another
            architecture (the message names the one that it seems to be), or arguments
            do not fit the weights.
        OSError: If the weights cannot be fetched or read.
    """
    if isinstance(name, str) and "." in name:
        name, tag = name.split(".", 1)
        if weights is not None:
            raise InputError(
                "Weights are named once: by the tag behind the name or by `weights`. "
                f"Received: name={name + '.' + tag!r}, weights={weights!r}"
            )
        weights = tag
    if name is None and weights is None:
        raise InputError(
            "create_model() needs a name of list_models(), or `weights` that hold one. "
            "Received: neither"
        )
    if name is not None:
        variant(name)  # refuse a wrong name before anything is fetched
    if weights is None and name is not None:
        return models.create_model(name, num_classes, input_shape, **overrides)
    found = find(name, weights)
    return _with_weights(found, num_classes, input_shape, resolution, overrides)


def _with_weights(found: Found, num_classes, input_shape, resolution, overrides):
    source = published if found.is_published else restoring
    overrides = dict(overrides)
    downsample = overrides.pop("downsample", None)
    model, own_classes = source.load(found, num_classes, input_shape, overrides)
    if not isinstance(model, ConfiguredModel):
        return model
    if input_shape is not None and _other_size(model, input_shape):
        model = resize(model, input_shape, resolution)
    if downsample not in (None, getattr(model, "downsample", None)):
        model, kept = communicating(model, downsample)
        print(
            f"{model.name}: the embeddings became {downsample} with {kept:.0%} of "
            "their squared weights: fine-tune it.",
            flush=True,
        )
    if isinstance(model, VisionMLP):
        _say_of_head(model, own_classes)
    return model


def _other_size(model, input_shape):
    return tuple(model.inputs[0].shape[1:]) != tuple(input_shape)


def _say_of_head(model, own_classes):
    """Print one line where the head was not among the weights."""
    if not (model.include_top and model.num_classes):
        return
    if own_classes != model.num_classes:
        theirs = f"the weights' is for {own_classes:,}" if own_classes else "none came"
        print(
            f"{model.name}: the head is new, for {model.num_classes:,} classes "
            f"({theirs}); everything else is loaded.",
            flush=True,
        )
