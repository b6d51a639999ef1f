"""The second stage's networks: what is in a region, and where in it exactly."""

import keras
from keras import ops

from kmlp.layers.conv_norm import ConvNorm
from kmlp.layers.layer import Layer

_HE = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def _normal(stddev):
    return keras.initializers.RandomNormal(stddev=stddev)


@keras.saving.register_keras_serializable("kmlp")
class BoxHead(Layer):
    """Convolutions, fully connected layers, then classes and boxes of regions.

    Two fully connected layers are the common head ("2FC"), four convolutions and one
    that of the published transformers ("4conv1fc").

    Args:
        num_classes: without the background, which is the last logit.
        convs: 3×3 convolutions without bias, with BatchNorm and ReLU.
        filters: of the convolutions.
        units: of the fully connected layers, each with ReLU.
        class_agnostic: one box of a region for all classes instead of one each.

    Shapes: features `(N, R, size, size, C)` to logits `(N, R, num_classes + 1)` and
    boxes' codes `(N, R, num_classes or 1, 4)`.

    References: Feature Pyramid Networks, Sect. 4.2; Cascade R-CNN, Sect. 4.
    """

    arguments = ("num_classes", "convs", "filters", "units", "class_agnostic")

    def __init__(
        self,
        num_classes,
        *,
        convs=0,
        filters=256,
        units=(1024, 1024),
        class_agnostic=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.convs = convs
        self.filters = filters
        self.units = tuple(units)
        self.class_agnostic = class_agnostic
        self.boxes_per_region = 1 if class_agnostic else num_classes
        dtype = self.dtype_policy
        self.convolutions = [
            ConvNorm(
                filters,
                3,
                activation="relu",
                kernel_initializer=_HE,
                name=f"conv{i}",
                dtype=dtype,
            )
            for i in range(convs)
        ]
        self.dense = [
            keras.layers.Dense(size, activation="relu", name=f"fc{i}", dtype=dtype)
            for i, size in enumerate(self.units)
        ]
        self.classes = keras.layers.Dense(
            num_classes + 1,
            kernel_initializer=_normal(0.01),
            name="classes",
            dtype=dtype,
        )
        self.boxes = keras.layers.Dense(
            4 * self.boxes_per_region,
            kernel_initializer=_normal(0.001),
            name="boxes",
            dtype=dtype,
        )

    def build(self, input_shape):
        _, _, height, width, channels = input_shape
        for conv in self.convolutions:
            conv.build((None, height, width, channels))
            channels = self.filters
        inner = height * width * channels
        for dense in self.dense:
            dense.build((None, inner))
            inner = dense.units
        self.classes.build((None, inner))
        self.boxes.build((None, inner))

    def call(self, inputs, training=None):
        count = inputs.shape[1]
        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        for conv in self.convolutions:
            x = conv(x, training=training)
        # (N·R, size, size, C) -> (N·R, size·size·C)
        x = ops.reshape(x, (-1, self.dense[0].kernel.shape[0]))
        for dense in self.dense:
            x = dense(x)
        logits = ops.reshape(self.classes(x), (-1, count, self.num_classes + 1))
        boxes = ops.reshape(self.boxes(x), (-1, count, self.boxes_per_region, 4))
        return [logits, boxes]

    def compute_output_shape(self, input_shape):
        region = tuple(input_shape[:2])
        return [(*region, self.num_classes + 1), (*region, self.boxes_per_region, 4)]

    def multiply_adds(self, input_shape):
        """Of one image, all its regions."""
        _, count, height, width, channels = input_shape
        dense = [*self.dense, self.classes, self.boxes]
        adds = sum(layer.kernel.shape[0] * layer.kernel.shape[1] for layer in dense)
        for conv in self.convolutions:
            adds += conv.multiply_adds((None, height, width, channels))
            channels = self.filters
        return count * adds


@keras.saving.register_keras_serializable("kmlp")
class MaskHead(Layer):
    """3×3 convolutions, a 2×2 transposed convolution, a mask for each class.

    Args:
        num_classes: without the background.
        convs: 3×3 convolutions with bias and ReLU.
        filters: of all of them.

    Shapes: features `(N, R, size, size, C)` to logits
    `(N, R, 2 size, 2 size, num_classes)`.

    Reference: Mask R-CNN, Fig. 4 (right).
    """

    arguments = ("num_classes", "convs", "filters")

    def __init__(self, num_classes, *, convs=4, filters=256, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.convs = convs
        self.filters = filters

        def conv(filters, kernel_size, name, activation=None):
            return ConvNorm(
                filters,
                kernel_size,
                use_bias=True,
                norm=None,
                activation=activation,
                kernel_initializer=_HE,
                name=name,
                dtype=self.dtype_policy,
            )

        self.convolutions = [conv(filters, 3, f"conv{i}", "relu") for i in range(convs)]
        self.upsample = keras.layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            activation="relu",
            data_format="channels_last",
            kernel_initializer=_HE.clone(),
            name="upsample",
            dtype=self.dtype_policy,
        )
        self.masks = conv(num_classes, 1, "masks")

    def build(self, input_shape):
        shape = (None, *input_shape[2:])
        for conv in self.convolutions:
            conv.build(shape)
            shape = (*shape[:3], self.filters)
        self.upsample.build(shape)
        self.masks.build((*shape[:3], self.filters))

    def call(self, inputs):
        count, height, width = inputs.shape[1:4]
        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        for conv in self.convolutions:
            x = conv(x)
        x = self.masks(self.upsample(x))
        return ops.reshape(x, (-1, count, 2 * height, 2 * width, self.num_classes))

    def compute_output_shape(self, input_shape):
        batch, count, height, width, _ = input_shape
        return (batch, count, 2 * height, 2 * width, self.num_classes)

    def multiply_adds(self, input_shape):
        """Of one image, all its regions."""
        _, count, height, width, channels = input_shape
        adds = 0
        for conv in self.convolutions:
            adds += conv.multiply_adds((None, height, width, channels))
            channels = self.filters
        adds += height * width * 4 * channels * self.filters
        adds += self.masks.multiply_adds((None, 2 * height, 2 * width, self.filters))
        return count * adds
