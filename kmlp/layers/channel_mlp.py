"""The channel MLP: two Dense layers with everything linear around them."""

import keras
from keras import ops

from kmlp import algebra
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    kernel_products,
    like,
)
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    build_norm,
    folded,
    normalization,
    own_norm,
    remaining_norm,
)
from kmlp.typing import KnownShape, Shape, Tensor


@keras.saving.register_keras_serializable("kmlp")
class ChannelMLP(Layer):
    """Norm, Dense `C -> ratio*C`, activation, Dense `-> C`, per-channel scale.

    One layer serves ResMLP's cross-channel sublayer, ConvMLP's channel MLP,
    MS-MLP's tail, sMLPNet's FFN and RepMLPNet's FFN; the residual addition is
    the caller's. Its inference form has two biased Dense layers and, where the
    norm is a layer norm, the standardisation before them.

    Args:
        mlp_ratio: Hidden channels per channel.
        norm: Norm before the first Dense, `"batch"`, `"layer"`, `"affine"`, `"l2"` or
            `None`.
        norm_affine: Whether a layer or l2 norm has its learned scale and shift.
        hidden_norm: Norm after each Dense (RepMLPNet), `"batch"` or `None`.
        use_bias: Whether the Dense layers have biases.
        activation: Name of a Keras activation; GELU is exact.
        layer_scale: Initial value of a learned per-channel scale of the output,
            or `None`.
        epsilon: Constant of the norms.
        kernel_initializer: Initializer of the Dense layers.

    Shapes: `(…, C)` in and out.

    References: ResMLP Eq. 3; RepMLPNet Sect. 4.3; ConvMLP Sect. 3.4; MS-MLP
    Sect. 3.3; sMLPNet Sect. 3.2.
    """

    def __init__(
        self,
        mlp_ratio=4,
        *,
        norm=None,
        norm_affine=True,
        hidden_norm=None,
        use_bias=True,
        activation="gelu",
        layer_scale=None,
        epsilon=1e-5,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.activate = activation_function(activation)
        self.normalize = own_norm(self)

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        hidden = int(channels * self.mlp_ratio)
        build_norm(self.normalize, input_shape)
        self.fc1 = self._dense(hidden, "fc1", channels, use_bias=self.use_bias)
        self.fc2 = self._dense(channels, "fc2", hidden, use_bias=self.use_bias)
        self.norm1 = self._hidden_norm("norm1", hidden)
        self.norm2 = self._hidden_norm("norm2", channels)
        self.gamma = self._gamma(channels)

    def _hidden_norm(self, name, width):
        norm = normalization(
            self.hidden_norm, epsilon=self.epsilon, name=name, dtype=self.dtype_policy
        )
        build_norm(norm, (None, width))
        return norm

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = apply_norm(self.normalize, inputs, training)
        # Two-dimensional, so that bias and activation fuse into the products.
        x = ops.reshape(x, (-1, inputs.shape[-1]))
        x = apply_norm(self.norm1, self.fc1(x), training)
        x = apply_norm(self.norm2, self.fc2(self.activate(x)), training)
        if self.gamma is not None:
            x = x * self.gamma
        return ops.reshape(x, like(inputs))

    def multiply_adds(self, input_shape: KnownShape) -> int:
        return kernel_products(input_shape, self.fc1.kernel, self.fc2.kernel)

    def merged(self) -> Layer:
        """Return two Dense layers with norms, biases and the scale folded in."""
        before, after = affine_terms(self.normalize), affine_terms(self.norm1)
        first = folded(self.fc1, before=before, after=after)
        second = folded(self.fc2, after=affine_terms(self.norm2))
        if self.gamma is not None:
            terms = second["kernel"], second["bias"], host(self.gamma)
            second = dict(zip(second, algebra.fold_after(*terms), strict=True))
        twin = copy(
            self,
            **remaining_norm(self.norm),
            hidden_norm=None,
            use_bias=True,
            layer_scale=None,
        )
        assign(twin.fc1, **first)
        assign(twin.fc2, **second)
        return twin
