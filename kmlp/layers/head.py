"""The classifier: norm, global average pooling, Dense."""

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.layer import Layer, assign, copy, host
from kmlp.layers.norms import (
    affine_terms,
    apply_norm,
    normalization,
    remaining_norm,
)


@keras.saving.register_keras_serializable("kmlp")
class ClassifierHead(Layer):
    """Norm, mean over all positions, Dense; the norm folds into the Dense.

    Args:
        num_classes: units of the Dense; 0: no Dense, the output is the features that
            it would see.
        norm: `"batch"`, `"layer"`, `"affine"`, `"l2"` or `None`.
        norm_affine: whether a layer or l2 norm has its learned scale and shift.
        pool_first: pooling before the norm (MS-MLP) instead of after it.
        activation: of the Dense; `None` gives logits.
        epsilon: of the norm.
        kernel_initializer: of the Dense.

    Attributes:
        dense: the Dense, or `None`.

    Shapes: `(N, H, W, C)` in, `(N, num_classes)` or `(N, C)` out.

    Raises:
        InputError: `num_classes` is no integer of at least 0.

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
        self.normalize = normalization(
            norm,
            epsilon=epsilon,
            scale=norm_affine,
            center=norm_affine,
            dtype=self.dtype_policy,
        )
        self.dense = None
        if num_classes:
            self.dense = keras.layers.Dense(
                num_classes,
                activation=activation,
                kernel_initializer=self.kernel_initializer,
                name="dense",
                dtype=self.dtype_policy,
            )

    def build(self, input_shape):
        if self.normalize is not None:
            pooled = (None, input_shape[-1])
            self.normalize.build(pooled if self.pool_first else input_shape)
        if self.dense is not None:
            self.dense.build((None, input_shape[-1]))

    def call(self, inputs, training=None):
        x = inputs
        if not self.pool_first:
            x = apply_norm(self.normalize, x, training)
        x = ops.mean(x, axis=(1, 2))
        if self.pool_first:
            x = apply_norm(self.normalize, x, training)
        return x if self.dense is None else self.dense(x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes or input_shape[-1])

    def multiply_adds(self, input_shape):
        return input_shape[-1] * self.num_classes

    def merged(self):
        """The norm's scale and shift, which pass through the mean, in the Dense."""
        if (terms := affine_terms(self.normalize)) is None:
            return copy(self)
        if self.dense is None:
            return self._merged_features(*terms)
        twin = copy(self, **remaining_norm(self.norm))
        kernel, bias = algebra.fold_before(
            host(self.dense.kernel), host(self.dense.bias), *terms
        )
        assign(twin.dense, kernel=kernel, bias=bias)
        return twin

    def _merged_features(self, scale, shift):
        """Without a Dense to fold into, BatchNorm becomes its scale and shift."""
        if self.norm != "batch":
            return copy(self)
        twin = copy(self, norm="affine")
        assign(twin.normalize, alpha=scale, beta=shift)
        return twin
