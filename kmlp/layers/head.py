"""Classify a map: the classifier, and the class layers that may precede it."""

import keras
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.initializers import NORMAL, initializer, start
from kmlp.layers.layer import Layer, assign, copy, host
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    build_norm,
    folded,
    own_norm,
    remaining_norm,
    with_affine_norm,
)
from kmlp.layers.patch_mixing import PositionLinear
from kmlp.typing import KnownShape, Shape, Tensor


@keras.saving.register_keras_serializable("kmlp")
class ClassifierHead(Layer):
    """Norm, mean over all positions, Dense; the norm folds into the Dense.

    Args:
        num_classes: Units of the Dense; 0: no Dense, the output is the features that
            it would see.
        norm: Kind of norm, `"batch"`, `"layer"`, `"affine"`, `"l2"` or `None`.
        norm_affine: Whether a layer or l2 norm has its learned scale and shift.
        pool_first: Pooling before the norm (MS-MLP) instead of after it.
        activation: Activation of the Dense; `None` gives logits.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the Dense.

    Attributes:
        dense: Dense layer, or `None`.

    Shapes: `(N, H, W, C)` in, `(N, num_classes)` or `(N, C)` out.

    Raises:
        InputError: If `num_classes` is no integer of at least 0.

    References: ResMLP Sect. 2; RepMLPNet Sect. 4.3; MS-MLP Sect. 3.1.
    """

    def __init__(
        self,
        num_classes,
        *,
        norm=None,
        norm_affine=True,
        pool_first=False,
        activation=None,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not hasattr(num_classes, "__index__") or num_classes < 0:
            raise InputError(
                "`num_classes` is the number of classes, or 0 for features without a "
                f"classifier. Received: num_classes={num_classes!r}"
            )
        self.num_classes = int(num_classes)
        self.normalize = own_norm(self)

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        build_norm(self.normalize, (None, width) if self.pool_first else input_shape)
        self.dense = None
        if self.num_classes:
            self.dense = self._dense(
                self.num_classes, "dense", width, activation=self.activation
            )

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = inputs
        if not self.pool_first:
            x = apply_norm(self.normalize, x, training)
        x = ops.mean(x, axis=(1, 2))
        if self.pool_first:
            x = apply_norm(self.normalize, x, training)
        return x if self.dense is None else self.dense(x)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.num_classes or input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return input_shape[-1] * self.num_classes

    def merged(self) -> Layer:
        """Return the Dense with the norm's scale and shift, which pass the mean."""
        if (terms := affine_terms(self.normalize)) is None:
            return copy(self)
        if self.dense is None:
            # Without a Dense to fold into, BatchNorm becomes its scale and shift.
            return with_affine_norm(self) if self.norm == "batch" else copy(self)
        twin = copy(self, **remaining_norm(self.norm))
        assign(twin.dense, **folded(self.dense, before=terms))
        return twin


@keras.saving.register_keras_serializable("kmlp")
class ClassMixing(Layer):
    """Reading of a class token: norm, one linear map to one position, scale.

    The map goes over the token and the patches, and all channels share it; the token's
    weight in it is kept apart. The inference form keeps `scale * (w x) + shift` per
    channel, as `CrossPatch` does.

    Args:
        norm: Kind of norm, `"affine"`, `"layer"`, `"batch"`, `"l2"` or `None`, of token
            and patches.
        norm_affine: Whether a layer or l2 norm has its learned scale and shift.
        layer_scale: Initial value of the scale, or `None`.
        folded: Whether this is the inference form.
        epsilon: Constant of the norm.
        kernel_initializer: Initializer of the linear map.

    Shapes: a map `(N, H, W, C)`, for which it is built, and a token `(N, 1, C)`, or
    `(1, 1, C)` where all images have the same, to `(N, 1, C)`.

    Reference: ResMLP (Touvron et al., 2021), Sect. 2, class-MLP.
    """

    def __init__(
        self,
        *,
        norm="affine",
        norm_affine=True,
        layer_scale=None,
        folded=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.normalize = own_norm(self)
        self.linear = PositionLinear(
            1,
            use_bias=not folded,
            kernel_initializer=self.kernel_initializer,
            name="linear",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: KnownShape) -> None:
        _, height, width, channels = input_shape
        patches = (None, height * width, channels)
        build_norm(self.normalize, patches)
        self.linear.build(patches)
        self.linear.input_grid, self.linear.covers_map = (height, width), True
        self.token_kernel = self.add_weight(
            name="token_kernel",
            shape=(1,),
            initializer=start(self.kernel_initializer, 1 + height * width)[0],
        )
        self.gamma = self.scale = self.shift = None
        if self.folded:
            shape = (channels,)
            self.scale = self.add_weight(name="scale", shape=shape, initializer="ones")
            self.shift = self.add_weight(name="shift", shape=shape, initializer="zeros")
        else:
            self.gamma = self._gamma(channels)

    def call(
        self, inputs: Tensor, token: Tensor, training: bool | None = None
    ) -> Tensor:
        _, height, width, channels = inputs.shape
        patches = ops.reshape(inputs, (-1, height * width, channels))
        token, patches = self._normalised(token, patches, training)
        x = self.linear(patches) + token * self.token_kernel
        if self.folded:
            return x * self.scale + self.shift
        return x if self.gamma is None else x * self.gamma

    def _normalised(self, token, patches, training):
        if self.norm == "batch":
            # Statistics are of token and patches together.
            token = ops.zeros_like(patches[:, :1]) + token
            x = ops.concatenate([token, patches], axis=1)
            x = apply_norm(self.normalize, x, training)
            return x[:, :1], x[:, 1:]
        return tuple(apply_norm(self.normalize, x, training) for x in (token, patches))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1, input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        _, height, width, channels = input_shape
        return (1 + height * width) * channels

    def merged(self) -> Layer:
        """Return the layer with norm, bias and gamma in `scale` and `shift`."""
        if self.folded:
            return copy(self)
        gamma = 1.0 if self.gamma is None else host(self.gamma)
        alpha, beta = affine_terms(self.normalize) or (1.0, 0.0)
        kernel, token_kernel = host(self.linear.kernel), host(self.token_kernel)
        twin = copy(self, **remaining_norm(self.norm), layer_scale=None, folded=True)
        assign(twin.linear, kernel=kernel)
        weights = kernel.sum() + token_kernel
        shift = gamma * (beta * weights + host(self.linear.bias))
        assign(twin, token_kernel=token_kernel, scale=gamma * alpha, shift=shift)
        return twin


@keras.saving.register_keras_serializable("kmlp")
class ClassMLP(Layer):
    """Class layers: a learned class token reads a map, which stays as it is.

    Each layer adds to the token what a `ClassMixing` reads from token and patches, and
    then what a `ChannelMLP` makes of the token: CaiT's class attention with one linear
    map in place of the attention. What the paper leaves open is as in CaiT: the first
    norm is shared by token and patches, the second is of the token, both with layer
    scales, the MLP has four hidden channels per channel, and no layer is dropped at
    random. The norm before the classifier is the head's.

    Args:
        depth: Number of class layers.
        mlp_ratio: Hidden channels per channel of their MLPs.
        norm: Kind of norm, `"affine"`, `"layer"`, `"batch"`, `"l2"` or `None`.
        layer_scale: Initial value of the scales of both sublayers, or `None`.
        activation: Activation of the MLPs.
        folded: Whether this is the inference form.
        epsilon: Constant of the norms.
        kernel_initializer: Initializer of all linear maps.

    Shapes: `(N, H, W, C)`, sizes known, to `(N, 1, 1, C)`, a map of the token alone.

    References: ResMLP (Touvron et al., 2021), Sect. 2; Going deeper with Image
    Transformers (Touvron et al., 2021), Sect. 3.
    """

    def __init__(
        self,
        depth=2,
        *,
        mlp_ratio=4,
        norm="affine",
        layer_scale=None,
        activation="gelu",
        folded=False,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        norms = remaining_norm(norm) if folded else {"norm": norm}
        shared = {
            **norms,
            "layer_scale": None if folded else layer_scale,
            "epsilon": epsilon,
            "kernel_initializer": self.kernel_initializer,
            "dtype": self.dtype_policy,
        }
        self.mixings = [
            ClassMixing(folded=folded, name=f"mixing{i}", **shared)
            for i in range(depth)
        ]
        self.mlps = [
            ChannelMLP(mlp_ratio, activation=activation, name=f"mlp{i}", **shared)
            for i in range(depth)
        ]

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        self.token = self.add_weight(
            name="token",
            shape=(channels,),
            initializer=initializer(NORMAL),
        )
        for mixing, mlp in zip(self.mixings, self.mlps):
            mixing.build(input_shape)
            mlp.build((None, 1, channels))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        token = ops.reshape(self.token, (1, 1, -1))  # at first the same for all images
        for mixing, mlp in zip(self.mixings, self.mlps):
            token = token + mixing(inputs, token, training=training)
            token = token + mlp(token, training=training)
        return ops.expand_dims(token, 1)  # (N, 1, C) -> (N, 1, 1, C)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 1, 1, input_shape[-1])

    def multiply_adds(self, input_shape: KnownShape) -> int:
        token = (input_shape[0], 1, input_shape[-1])
        mixings = sum(part.multiply_adds(input_shape) for part in self.mixings)
        return mixings + sum(part.multiply_adds(token) for part in self.mlps)

    def merged(self) -> Layer:
        """Return the layer with the parts' norms and scales in their linear maps."""
        if self.folded:
            return copy(self)
        twin = copy(self, folded=True)
        assign(twin, token=host(self.token))
        pairs = zip(twin.mixings + twin.mlps, self.mixings + self.mlps)
        for new, old in pairs:
            new.set_weights(old.merged().get_weights())
        return twin
