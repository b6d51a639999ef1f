"""Normalisation layers, and what of them folds into a linear neighbour."""

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.layer import Layer, activation_function, assign, copy, host

NORMS = ("batch", "layer", "affine", "l2", None)


@keras.saving.register_keras_serializable("kmlp")
class Affine(Layer):
    """Per-channel scale and shift, `alpha * x + beta`: ResMLP's Aff.

    Shapes: `(…, C)` in and out.

    Reference: ResMLP (Touvron et al., 2021), Eq. 1.
    """

    def build(self, input_shape):
        channels = (input_shape[-1],)
        self.alpha = self.add_weight(name="alpha", shape=channels, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros")

    def call(self, inputs):
        return inputs * self.alpha + self.beta


@keras.saving.register_keras_serializable("kmlp")
class L2Norm(Layer):
    """Each token divided by its l2 norm over the channels, then scale and shift.

    ResMLP's appendix names this norm and no more. What it leaves open is read here as
    in the layer norm that it replaces: over the channels of each token, with a learned
    scale and shift per channel. The scale starts at sqrt(C), so that the values start
    as large as a layer norm's.

    Args:
        epsilon: added to the sum of squares.
        scale, center: whether there are the learned scale and shift.

    Shapes: `(…, C)` in and out.

    Reference: ResMLP (Touvron et al., 2021), Appendix A, Normalization.
    """

    def __init__(self, *, epsilon=1e-5, scale=True, center=True, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        channels = input_shape[-1]
        self.gamma = self.beta = None
        if self.scale:
            start = keras.initializers.Constant(channels**0.5)
            self.gamma = self.add_weight(
                name="gamma", shape=(channels,), initializer=start
            )
        if self.center:
            self.beta = self.add_weight(
                name="beta", shape=(channels,), initializer="zeros"
            )

    def call(self, inputs):
        # Squares of half precision overflow, and their sum needs more digits.
        precise = keras.backend.result_type(self.compute_dtype, "float32")
        x = ops.cast(inputs, precise)
        length = ops.sum(ops.square(x), axis=-1, keepdims=True) + self.epsilon
        x = ops.cast(x * ops.rsqrt(length), self.compute_dtype)
        x = x if self.gamma is None else x * self.gamma
        return x if self.beta is None else x + self.beta


@keras.saving.register_keras_serializable("kmlp")
class BatchNorm(keras.layers.BatchNormalization):
    """BatchNormalization with the papers' constants; an `Affine` when merged.

    Args:
        momentum: Keras' sense; PyTorch's 0.1 is 0.9 here.
        epsilon: added to the variance.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def merged(self):
        """The normalisation with its moving statistics, as an `Affine`."""
        affine = Affine(name=self.name, dtype=self.dtype_policy)
        affine.build(self.get_build_config()["input_shape"])
        affine.built = True
        scale, shift = affine_terms(self)
        assign(affine, alpha=scale, beta=shift)
        return affine


@keras.saving.register_keras_serializable("kmlp")
class NormActivation(Layer):
    """BatchNorm (or another norm) followed by an activation.

    Args:
        norm: one of `"batch"`, `"layer"`, `"affine"`, `"l2"`, `None`.
        activation: name of a Keras activation.
        epsilon: of the norm.
    """

    def __init__(self, norm="batch", activation="gelu", *, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.normalize = normalization(norm, epsilon=epsilon, dtype=self.dtype_policy)
        self.activate = activation_function(activation)

    def build(self, input_shape):
        if self.normalize is not None:
            self.normalize.build(input_shape)

    def call(self, inputs, training=None):
        return self.activate(apply_norm(self.normalize, inputs, training))

    def merged(self):
        """The same with BatchNorm turned into scale and shift."""
        if self.norm != "batch":
            return copy(self)
        twin = copy(self, norm="affine")
        scale, shift = affine_terms(self.normalize)
        assign(twin.normalize, alpha=scale, beta=shift)
        return twin


def normalization(kind, *, epsilon, scale=True, center=True, name="norm", dtype=None):
    """A norm layer by name.

    Args:
        kind: `"batch"`, `"layer"`, `"affine"` (Aff), `"l2"` or `None` (gives `None`).
        epsilon: of the batch, layer or l2 norm.
        scale, center: whether a layer or l2 norm has its learned scale and shift.
        name, dtype: of the layer.

    Raises:
        InputError: an unknown kind.
    """
    if kind is None:
        return None
    if kind == "batch":
        return BatchNorm(epsilon=epsilon, name=name, dtype=dtype)
    if kind == "layer":
        return keras.layers.LayerNormalization(
            epsilon=epsilon,
            scale=scale,
            center=center,
            name=name,
            dtype=dtype,
        )
    if kind == "affine":
        return Affine(name=name, dtype=dtype)
    if kind == "l2":
        return L2Norm(
            epsilon=epsilon, scale=scale, center=center, name=name, dtype=dtype
        )
    raise InputError(f"`norm` must be one of {NORMS}. Received: norm={kind!r}")


def apply_norm(norm, inputs, training):
    """Calls a norm, or passes the input through where there is none."""
    if norm is None:
        return inputs
    if isinstance(norm, keras.layers.BatchNormalization):
        return norm(inputs, training=training)
    return norm(inputs)


def affine_terms(norm, read=host):
    """The per-channel `(scale, shift)` that a norm applies last.

    BatchNorm and Aff are nothing else in inference; of a layer or l2 norm these
    are gamma and beta, and the standardisation remains. `read` turns a variable
    into an array (`host`) or a tensor.
    """
    if norm is None:
        return None
    if isinstance(norm, keras.layers.BatchNormalization):
        return algebra.batch_norm_affine(
            read(norm.gamma),
            read(norm.beta),
            read(norm.moving_mean),
            read(norm.moving_variance),
            norm.epsilon,
        )
    if isinstance(norm, Affine):
        return read(norm.alpha), read(norm.beta)
    return None if norm.gamma is None else (read(norm.gamma), read(norm.beta))


def remaining_norm(kind):
    """Config of what stays of a norm once its scale and shift are folded."""
    remaining = kind if kind in ("layer", "l2") else None
    return {"norm": remaining, "norm_affine": False}
