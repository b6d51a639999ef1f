"""RepMLPNet's Global Perceptron."""

import keras
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError
from kmlp.layers.layer import Layer, initializer, pair, tensor
from kmlp.layers.norms import affine_terms, normalization


@keras.saving.register_keras_serializable("kmlp")
class GlobalPerceptron(Layer):
    """A gate per channel from the whole map: pool, Dense, ReLU, Dense, sigmoid.

    Args:
        reduction: channels per hidden unit.
        kernel_initializer: of the Dense layers.

    Shapes: `(N, H, W, C)` in, `(N, 1, 1, C)` out, within (0, 1).

    Reference: RepMLPNet Sect. 4.2, Fig. 1 (FC1, FC2).
    """

    def __init__(self, reduction=4, *, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)

    def build(self, input_shape):
        channels = input_shape[-1]
        hidden = channels // self.reduction
        if not hidden:
            raise InputError(
                f"{self.name}: `reduction` must not exceed the channels ({channels}). "
                f"Received: reduction={self.reduction}"
            )
        self.fc1 = self._dense(hidden, "relu", "fc1", channels)
        self.fc2 = self._dense(channels, "sigmoid", "fc2", hidden)

    def _dense(self, units, activation, name, inputs):
        dense = keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=initializer(self.kernel_initializer),
            name=name,
            dtype=self.dtype_policy,
        )
        dense.build((None, inputs))
        return dense

    def call(self, inputs):
        gate = self.fc2(self.fc1(ops.mean(inputs, axis=(1, 2))))
        return ops.reshape(gate, (-1, 1, 1, inputs.shape[-1]))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, 1, input_shape[-1])

    def multiply_adds(self, input_shape):
        return 2 * input_shape[-1] * (input_shape[-1] // self.reduction)


@keras.saving.register_keras_serializable("kmlp")
class LocalBranch(Layer):
    """Depthwise convolution shared by set, then BatchNorm over the share-sets.

    Channel `c` belongs to share-set `c mod S`, so every run of `S` channels is
    convolved with the same `S` kernels and counts as further samples in the
    norm's statistics.

    Args:
        kernel_size: odd integer or pair of odd integers.
        share_sets: number S of kernels; divides the channels.
        epsilon: of the BatchNorm.

    Called with `valid`, a function of the convolution's output, the norm sees what
    it returns: of padded blocks the positions of the map.

    Shapes: `(B, h, w, C)` in, `(B, h*w, C/S, S)` out.

    Reference: RepMLPNet Sect. 4.2, Fig. 1 (Local Perceptron).
    """

    def __init__(self, kernel_size, share_sets=1, *, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = pair(kernel_size, "local_kernels")
        if any(size % 2 == 0 for size in self.kernel_size):
            raise InputError(
                "Local kernels must have odd sizes, so that their output stays "
                f"centred. Received: local_kernels={kernel_size!r}"
            )
        self.normalize = normalization(
            "batch", epsilon=epsilon, dtype=self.dtype_policy
        )

    def build(self, input_shape):
        _, height, width, channels = input_shape
        taps = self.kernel_size[0] * self.kernel_size[1]
        bound = taps**-0.5
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.share_sets),
            initializer=keras.initializers.RandomUniform(-bound, bound),
        )
        groups = channels // self.share_sets
        self.normalize.build((None, height * width, groups, self.share_sets))

    def call(self, inputs, valid=None, training=None):
        _, height, width, channels = inputs.shape
        groups = channels // self.share_sets
        kernel = ops.tile(self.kernel, (1, 1, groups))
        if self.kernel_size == (1, 1):
            outputs = inputs * kernel[0, 0]
        else:
            outputs = ops.depthwise_conv(
                inputs, kernel[..., None], padding="same", data_format="channels_last"
            )
        outputs = ops.reshape(outputs, (-1, height * width, groups, self.share_sets))
        if valid is not None:
            outputs = valid(outputs)
        return self.normalize(outputs, training=training)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        groups = channels // self.share_sets
        return (batch, height * width, groups, self.share_sets)

    def multiply_adds(self, input_shape):
        _, height, width, channels = input_shape
        taps = self.kernel_size[0] * self.kernel_size[1]
        return height * width * channels * taps

    def folded(self, read=tensor):
        """The convolution with its norm folded in: `(kh, kw, S)` and `(S,)`.

        `read` turns variables into tensors (differentiable) or, as
        `kmlp.layers.layer.host`, into float64 arrays.
        """
        terms = affine_terms(self.normalize, read)
        return algebra.fold_after(read(self.kernel), None, *terms)
