"""The channel MLP: two Dense layers with everything linear around them."""

import math

import keras
from keras import ops

from kmlp import algebra
from kmlp.layers.layer import (
    Layer,
    activation_function,
    assign,
    copy,
    host,
    initializer,
    like,
)
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    normalization,
    remaining_norm,
)


@keras.saving.register_keras_serializable("kmlp")
class ChannelMLP(Layer):
    """Norm, Dense `C -> ratio*C`, activation, Dense `-> C`, per-channel scale.

    One layer serves ResMLP's cross-channel sublayer, ConvMLP's channel MLP,
    MS-MLP's tail, sMLPNet's FFN and RepMLPNet's FFN; the residual addition is
    the caller's. Its inference form has two biased Dense layers and, where the
    norm is a layer norm, the standardisation before them.

    Args:
        mlp_ratio: hidden channels per channel.
        norm: norm before the first Dense: `"batch"`, `"layer"`, `"affine"`, `"l2"`,
            `None`.
        norm_affine: whether a layer or l2 norm has its learned scale and shift.
        hidden_norm: norm after each Dense (RepMLPNet): `"batch"` or `None`.
        use_bias: biases of the Dense layers.
        activation: name of a Keras activation; GELU is exact.
        layer_scale: initial value of a learned per-channel scale of the output,
            or `None`.
        epsilon: of the norms.
        kernel_initializer: of the Dense layers.

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
        self.normalize = normalization(
            norm,
            epsilon=epsilon,
            scale=norm_affine,
            center=norm_affine,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        hidden = int(channels * self.mlp_ratio)
        if self.normalize is not None:
            self.normalize.build(input_shape)
        self.fc1 = self._dense(hidden, "fc1", (None, channels))
        self.fc2 = self._dense(channels, "fc2", (None, hidden))
        self.norm1 = self._hidden_norm("norm1", (None, hidden))
        self.norm2 = self._hidden_norm("norm2", (None, channels))
        self.gamma = None
        if self.layer_scale is not None:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(channels,),
                initializer=keras.initializers.Constant(self.layer_scale),
            )

    def _dense(self, units, name, shape):
        dense = keras.layers.Dense(
            units,
            use_bias=self.use_bias,
            kernel_initializer=initializer(self.kernel_initializer),
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build(shape)
        return dense

    def _hidden_norm(self, name, shape):
        norm = normalization(
            self.hidden_norm, epsilon=self.epsilon, name=name, dtype=self.dtype_policy
        )
        if norm is not None:
            norm.build(shape)
        return norm

    def call(self, inputs, training=None):
        x = apply_norm(self.normalize, inputs, training)
        # Two-dimensional, so that bias and activation fuse into the products.
        x = ops.reshape(x, (-1, inputs.shape[-1]))
        x = apply_norm(self.norm1, self.fc1(x), training)
        x = apply_norm(self.norm2, self.fc2(self.activate(x)), training)
        if self.gamma is not None:
            x = x * self.gamma
        return ops.reshape(x, like(inputs))

    def multiply_adds(self, input_shape):
        return math.prod(input_shape[1:-1]) * 2 * math.prod(self.fc1.kernel.shape)

    def merged(self):
        """Norms, biases and the scale folded into the two Dense layers."""
        kernel1, bias1 = host(self.fc1.kernel), host(self.fc1.bias)
        kernel2, bias2 = host(self.fc2.kernel), host(self.fc2.bias)
        if (terms := affine_terms(self.normalize)) is not None:
            kernel1, bias1 = algebra.fold_before(kernel1, bias1, *terms)
        if self.norm1 is not None:
            kernel1, bias1 = algebra.fold_after(
                kernel1, bias1, *affine_terms(self.norm1)
            )
            kernel2, bias2 = algebra.fold_after(
                kernel2, bias2, *affine_terms(self.norm2)
            )
        if self.gamma is not None:
            kernel2, bias2 = algebra.fold_after(kernel2, bias2, host(self.gamma))
        twin = copy(
            self,
            **remaining_norm(self.norm),
            hidden_norm=None,
            use_bias=True,
            layer_scale=None,
        )
        assign(twin.fc1, kernel=kernel1, bias=0.0 if bias1 is None else bias1)
        assign(twin.fc2, kernel=kernel2, bias=0.0 if bias2 is None else bias2)
        return twin
