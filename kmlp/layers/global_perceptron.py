"""RepMLPNet's Global Perceptron."""

import keras
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.layer import Layer, initializer


@keras.saving.register_keras_serializable("kmlp")
class GlobalPerceptron(Layer):
    """A gate per channel from the whole map: pool, Dense, ReLU, Dense, sigmoid.

    Args:
        reduction: channels per hidden unit.
        kernel_initializer: of the Dense layers.

    Shapes: `(N, H, W, C)` in, `(N, 1, 1, C)` out, within (0, 1).

    Reference: RepMLPNet Sect. 4.2, Fig. 1 (FC1, FC2).
    """

    arguments = ("reduction", "kernel_initializer")

    def __init__(self, reduction=4, *, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.reduction = reduction
        self.kernel_initializer = initializer(kernel_initializer)

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
