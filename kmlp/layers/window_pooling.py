"""Windows pooled to positions."""

import keras
from keras import ops

from kmlp.layers.layer import Layer, initializer


@keras.saving.register_keras_serializable("kmlp")
class WindowPooling(Layer):
    """One position for each window: a learned weighted sum, shared by the channels.

    Args:
        use_bias: whether a number is added, the same to every channel.
        kernel_initializer: of the weights.

    Shapes: `(N, positions, C)` to `(N, C)`.

    Reference: Focal Transformer (Yang et al., 2021), Sect. 3.2, sub-window pooling.
    """

    arguments = ("use_bias", "kernel_initializer")

    def __init__(self, *, use_bias=True, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.use_bias = use_bias
        self.kernel_initializer = initializer(kernel_initializer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(1, input_shape[1]),
            initializer=initializer(self.kernel_initializer),
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")

    def call(self, inputs):
        x = ops.reshape(ops.matmul(self.kernel[None], inputs), (-1, inputs.shape[-1]))
        return x if self.bias is None else x + self.bias

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def multiply_adds(self, input_shape):
        return input_shape[1] * input_shape[2]
