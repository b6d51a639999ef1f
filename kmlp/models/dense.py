"""The base model of detectors and segmenters: a backbone's pyramid, two graphs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.layer import recorded_arguments
from kmlp.models.configured import ConfiguredModel
from kmlp.typing import Tensor

# Classes of backbones whose taps the published networks normalise, by name, so that
# transformers of other libraries may join.
NORMED_TAPS = ("MSMLP", "MSMLPHybrid", "SwinTransformer", "FocalTransformer")
LEVELS = ("P2", "P3", "P4", "P5")


class DenseModel(ConfiguredModel, abstract=True):
    """A functional model that answers for places in an image, and how it learns.

    Called with `training=False` it is its inference graph, whose outputs are
    predictions: what is saved, merged and exported. Called with `training=True` it
    gives the raw outputs that `losses_of` compares with targets.

    A subclass builds both graphs over the same layers and hands them over. The
    arguments that its signature names become attributes and the configuration; a
    subclass that is defined with `abstract=True` leaves that to its own subclasses.

    Args:
        inputs: Image tensor.
        outputs: Outputs of the inference graph.
        raw: Structure of tensors, what training needs of the same layers.
        backbone: Backbone as the constructor took it.
        pyramid: Nested model of its taps, from `pyramid_of`.
        parts: Layers `{name: layer}` that only training or `losses_of` call.
        name: Name of the model.
        dtype: Dtype policy of the model.

    Attributes:
        backbone: Nested model `images -> {"P2": map, …}`.
        loss_names: Names of the losses that `losses_of` gives, in its order.
    """

    task: str | None = None
    loss_names: tuple[str, ...] = ()

    def __init__(
        self,
        inputs,
        outputs,
        *,
        raw,
        backbone,
        pyramid,
        name,
        dtype,
        parts=None,
    ):
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        # Layers that do not reach the outputs are counted, saved and trained too.
        for part, layer in (parts or {}).items():
            setattr(self, part, layer)
        self._raw = keras.Model(inputs, raw, name=f"{name}_raw")
        self.backbone = pyramid
        config = recorded_arguments(self)
        config["backbone"] = keras.saving.serialize_keras_object(backbone)
        self._keep(config, dtype, "backbone")

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training:
            return self._raw(inputs, training=True)
        return super().call(inputs, training=training, mask=mask)

    def losses_of(
        self, outputs: Any, targets: Any, training: bool = True
    ) -> dict[str, Tensor]:
        """Return losses of images, each as float32 `(N,)`; their sum is minimised.

        Args:
            outputs: Outputs of `model(images, training=True)`.
            targets: Targets as the class documents them.
            training: Whether layers that are called here learn.
        """
        raise NotImplementedError

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the loss of `fit`: the mean over images of all losses."""
        if not training:
            # `evaluate` calls the inference graph; losses need the other one.
            y_pred = self._raw(x, training=False)
        losses = self.losses_of(y_pred, y, training=training).values()
        losses = ops.sum(ops.stack(list(losses)), axis=0)
        if sample_weight is not None:
            losses = losses * ops.cast(sample_weight, losses.dtype)
        return ops.mean(losses)


def pyramid_of(
    backbone: keras.Model,
    levels: Sequence[str] = LEVELS,
    *,
    norm: str | None = "auto",
    dtype: Any = None,
) -> tuple[keras.Model, Tensor, list]:
    """Return a backbone's taps as a model to build upon.

    Args:
        backbone: Functional model with `pyramid_outputs`, of kmlp or another
            library; its classifier stays outside.
        levels: Keys of the taps wanted.
        norm: Norm on every tap. `"layer"`: a layer norm, which belongs to the dense
            model; `None`: none; `"auto"`: as the published networks of the family have
            it.
        dtype: Dtype policy of the norms.

    Returns:
        The nested model of the taps, an input tensor, and the list of maps, finest
        first, with their norms.

    Raises:
        InputError: If there is no pyramid, or it lacks a level.
    """
    taps = getattr(backbone, "pyramid_outputs", None)
    if not taps:
        raise InputError(
            "A backbone is a functional model with `pyramid_outputs`, such as "
            "kmlp.create_model('convmlp_s', include_top=False). "
            f"Received: {backbone!r}"
        )
    if missing := [level for level in levels if level not in taps]:
        raise InputError(
            f"This takes a hierarchical backbone with {', '.join(levels)}; "
            f"{', '.join(missing)} are missing: choose a family of four stages. "
            f"Received: {backbone.name!r} with {', '.join(taps)}"
        )
    if norm == "auto":
        norm = "layer" if type(backbone).__name__ in NORMED_TAPS else None
    if norm not in ("layer", None):
        raise InputError(
            f"`tap_norm` must be 'auto', 'layer' or None. Received: tap_norm={norm!r}"
        )
    wanted = {level: taps[level] for level in levels}
    pyramid = keras.Model(backbone.inputs[0], wanted, name=backbone.name)
    pyramid.pyramid_outputs = wanted
    inputs = keras.Input(backbone.inputs[0].shape[1:], name="images")
    maps = list(pyramid(inputs).values())
    if norm:
        maps = [
            keras.layers.LayerNormalization(
                epsilon=1e-5, name=f"tap_norm_{level.lower()}", dtype=dtype
            )(x)
            for level, x in zip(levels, maps)
        ]
    return pyramid, inputs, maps
