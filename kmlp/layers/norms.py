"""Normalisation layers, and their folding into a linear neighbour."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import check_choice
from kmlp.layers.layer import Layer, activation_function, assign, copy, host
from kmlp.typing import Config, KnownShape, Shape, Tensor

NORMS = ("batch", "layer", "affine", "l2", None)


@keras.saving.register_keras_serializable("kmlp")
class Affine(Layer):
    """Per-channel scale and shift, `alpha * x + beta`: ResMLP's Aff.

    Shapes: `(…, C)` in and out.

    Reference: ResMLP (Touvron et al., 2021), Eq. 1.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True  # as the BatchNorm that it may replace

    def build(self, input_shape: KnownShape) -> None:
        channels = (input_shape[-1],)
        self.alpha = self.add_weight(name="alpha", shape=channels, initializer="ones")
        self.beta = self.add_weight(name="beta", shape=channels, initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.alpha + self.beta


@keras.saving.register_keras_serializable("kmlp")
class L2Norm(Layer):
    """Each token divided by its l2 norm over the channels, then scale and shift.

    ResMLP's appendix names this norm and no more. What it leaves open is read here as
    in the layer norm that it replaces: over the channels of each token, with a learned
    scale and shift per channel. The scale starts at sqrt(C), so that the values start
    as large as a layer norm's.

    Args:
        epsilon: Constant added to the sum of squares.
        scale: Whether there is the learned scale.
        center: Whether there is the learned shift.

    Shapes: `(…, C)` in and out.

    Reference: ResMLP (Touvron et al., 2021), Appendix A, Normalization.
    """

    def __init__(self, *, epsilon=1e-5, scale=True, center=True, **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape: KnownShape) -> None:
        shape = (input_shape[-1],)
        self.gamma = self.beta = None
        if self.scale:
            start = keras.initializers.Constant(shape[0] ** 0.5)
            self.gamma = self.add_weight(name="gamma", shape=shape, initializer=start)
        if self.center:
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
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

    The moving variance averages unbiased variances, as in the published networks
    (PyTorch); Keras' averages biased ones.

    Args:
        momentum: Share that an average keeps in a step; PyTorch's 0.1 is 0.9 here.
        epsilon: Constant added to the variance.

    Attributes:
        replicas: Number of replicas over which statistics are taken, set by a training
            engine that synchronizes them.
    """

    replicas = 1

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(
        self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        kept = self.moving_variance * self.momentum
        outputs = super().call(inputs, training=training)
        count = ops.size(inputs) // inputs.shape[self.axis] * self.replicas
        # n / (n - 1) times what came in; one value alone has no unbiased variance.
        others = ops.maximum(ops.cast(count, "float32") - 1.0, 1.0)
        self.moving_variance.assign_add((self.moving_variance - kept) / others)
        return outputs

    def merged(self) -> Affine:
        """Return the normalisation by its moving statistics, as an `Affine`."""
        affine = Affine(
            name=self.name, dtype=self.dtype_policy, trainable=self.trainable
        )
        affine.build(self.get_build_config()["input_shape"])
        affine.built = True
        scale, shift = affine_terms(self)
        assign(affine, alpha=scale, beta=shift)
        return affine


@keras.saving.register_keras_serializable("kmlp")
class NormActivation(Layer):
    """BatchNorm (or another norm) followed by an activation.

    Args:
        norm: Kind of norm, `"batch"`, `"layer"`, `"affine"`, `"l2"` or `None`.
        activation: Name of a Keras activation.
        epsilon: Constant of the norm.
    """

    def __init__(self, norm="batch", activation="gelu", *, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.normalize = own_norm(self)
        self.activate = activation_function(activation)

    def build(self, input_shape: KnownShape) -> None:
        build_norm(self.normalize, input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.activate(apply_norm(self.normalize, inputs, training))

    def merged(self) -> Layer:
        """Return the same with BatchNorm turned into scale and shift."""
        return with_affine_norm(self) if self.norm == "batch" else copy(self)


def normalization(
    kind: str | None,
    *,
    epsilon: float,
    affine: bool = True,
    name: str = "norm",
    dtype: Any = None,
) -> keras.Layer | None:
    """Return a norm layer by name.

    Args:
        kind: Kind of norm, `"batch"`, `"layer"`, `"affine"` (Aff), `"l2"` or `None`
            (gives `None`).
        epsilon: Constant of the batch, layer or l2 norm.
        affine: Whether a layer or l2 norm has its learned scale and shift.
        name: Name of the layer.
        dtype: Dtype policy of the layer.

    Raises:
        InputError: If there is no such kind.
    """
    check_choice(NORMS, norm=kind)
    if kind is None:
        return None
    common: Config = {"name": name, "dtype": dtype}
    if kind == "affine":
        return Affine(**common)
    if kind == "batch":
        return BatchNorm(epsilon=epsilon, **common)
    norm = L2Norm if kind == "l2" else keras.layers.LayerNormalization
    return norm(epsilon=epsilon, scale=affine, center=affine, **common)


def own_norm(layer: Layer) -> keras.Layer | None:
    """Return the norm that `norm`, `norm_affine` and `epsilon` of a layer describe."""
    return normalization(
        layer.norm,
        epsilon=layer.epsilon,
        affine=getattr(layer, "norm_affine", True),
        dtype=layer.dtype_policy,
    )


def build_norm(norm: keras.Layer | None, shape: Shape) -> None:
    """Build a norm where there is one."""
    if norm is not None:
        norm.build(shape)


def apply_norm(
    norm: keras.Layer | None, inputs: Tensor, training: bool | None
) -> Tensor:
    """Call a norm, or return the inputs where there is none."""
    if norm is None:
        return inputs
    if isinstance(norm, keras.layers.BatchNormalization):
        return norm(inputs, training=training)
    return norm(inputs)


def affine_terms(norm: keras.Layer | None, read: Callable[[Any], Any] = host) -> Any:
    """Return the per-channel `(scale, shift)` that a norm applies last, or `None`.

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


def remaining_norm(kind: str | None) -> Config:
    """Return the config of a norm whose scale and shift have been folded."""
    remaining = kind if kind in ("layer", "l2") else None
    return {"norm": remaining, "norm_affine": False}


def with_affine_norm(layer: Layer) -> Layer:
    """Return a copy with BatchNorm as scale and shift; the caller fills the rest."""
    twin = copy(layer, norm="affine")
    scale, shift = affine_terms(layer.normalize) or (1.0, 0.0)
    assign(twin.normalize, alpha=scale, beta=shift)
    return twin


def folded(
    dense: keras.Layer, *, before: Any = None, after: Any = None
) -> dict[str, Any]:
    """Return kernel and bias of a Dense with its neighbours folded in.

    Args:
        dense: A built Dense layer.
        before: Pair `(scale, shift)` of its inputs, or `None`.
        after: Pair `(scale, shift)` of its outputs, or `None`.

    Returns:
        Weights `{"kernel": array, "bias": array or 0}`, as `assign` takes them.
    """
    kernel, bias = host(dense.kernel), host(dense.bias)
    if before is not None:
        kernel, bias = algebra.fold_before(kernel, bias, *before)
    if after is not None:
        kernel, bias = algebra.fold_after(kernel, bias, *after)
    return {"kernel": kernel, "bias": 0.0 if bias is None else bias}
