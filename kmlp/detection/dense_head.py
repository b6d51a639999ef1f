"""The head that detectors of one stage share between all levels."""

import math

import keras
from keras import ops

from kmlp.layers.conv_norm import ConvNorm, conv2d
from kmlp.layers.layer import Layer


@keras.saving.register_keras_serializable("kmlp")
class DenseHead(Layer):
    """3×3 convolutions with ReLU, then a 3×3 convolution that predicts.

    One set of weights serves the maps of all levels.

    Args:
        outputs: channels predicted at a place.
        filters: channels of the convolutions before.
        convs: number of those.
        prior: probability that the biases of the predictions start with; `None`: they
            start at zero.

    Shapes: a list of `(N, H_i, W_i, C)` to a list of `(N, H_i, W_i, outputs)`, float32
    under any policy.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017, Sect. 4,
    Fig. 3.
    """

    arguments = ("outputs", "filters", "convs", "prior")

    def __init__(self, outputs, filters=256, convs=4, prior=None, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs
        self.filters = filters
        self.convs = convs
        self.prior = prior
        self.tower = [
            ConvNorm(
                filters,
                3,
                use_bias=True,
                norm=None,
                activation="relu",
                kernel_initializer=_normal(),
                name=f"conv{i}",
                dtype=self.dtype_policy,
            )
            for i in range(convs)
        ]
        bias = 0.0 if prior is None else -math.log((1 - prior) / prior)
        self.predict = conv2d(
            outputs,
            3,
            kernel_initializer=_normal(),
            bias_initializer=keras.initializers.Constant(bias),
            name="predict",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        for conv, shape in zip([*self.tower, self.predict], self._shapes(input_shape)):
            conv.build((None, None, None, shape[-1]))

    def call(self, inputs):
        return [self._level(x) for x in inputs]

    def _level(self, x):
        for conv in self.tower:
            x = conv(x)
        return ops.cast(self.predict(x), "float32")

    def compute_output_shape(self, input_shape):
        return [(*shape[:3], self.outputs) for shape in input_shape]

    def compute_output_spec(self, inputs):
        return [
            keras.KerasTensor((*x.shape[:3], self.outputs), "float32") for x in inputs
        ]

    def multiply_adds(self, input_shape):
        """Of one image; takes the shapes of all maps."""
        weights = [conv.conv.kernel for conv in self.tower] + [self.predict.kernel]
        products = sum(math.prod(kernel.shape) for kernel in weights)
        return sum(math.prod(shape[1:3]) for shape in input_shape) * products

    def _shapes(self, input_shape):
        between = (*input_shape[0][:3], self.filters)
        return [input_shape[0], *[between] * self.convs]


def _normal():
    return keras.initializers.RandomNormal(stddev=0.01)
