"""The heads of detectors: what they predict of places and of regions."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmlp.layers.conv_norm import ConvNorm, conv2d
from kmlp.layers.initializers import HE_NORMAL
from kmlp.layers.layer import Layer
from kmlp.typing import KnownShape, Shape, Tensor


def _normal(stddev=0.01):
    return keras.initializers.RandomNormal(stddev=stddev)


def _biased(layer, filters, kernel_size, name, initial, activation=None):
    """Return a convolution with a bias and without norm for a layer."""
    return ConvNorm(
        filters,
        kernel_size,
        use_bias=True,
        norm=None,
        activation=activation,
        kernel_initializer=initial,
        name=name,
        dtype=layer.dtype_policy,
    )


def _in_a_row(convolutions, shape):
    """Yield convolutions that follow one another, each with its input's shape."""
    for conv in convolutions:
        yield conv, shape
        shape = conv.compute_output_shape(shape)


@keras.saving.register_keras_serializable("kmlp")
class DenseHead(Layer):
    """3×3 convolutions with ReLU, then a 3×3 convolution that predicts.

    One set of weights serves the maps of all levels.

    Args:
        outputs: Channels predicted at a place.
        filters: Channels of the convolutions before.
        convs: Number of those.
        prior: Probability that the biases of the predictions start with; `None`: they
            start at zero.

    Shapes: a list of `(N, H_i, W_i, C)` to a list of `(N, H_i, W_i, outputs)`, float32
    under any policy.

    Reference: Lin et al., Focal Loss for Dense Object Detection, 2017, Sect. 4,
    Fig. 3.
    """

    def __init__(self, outputs, filters=256, convs=4, prior=None, **kwargs):
        super().__init__(**kwargs)
        self.tower = [
            _biased(self, filters, 3, f"conv{i}", _normal(), "relu")
            for i in range(convs)
        ]

    def build(self, input_shape: Sequence[KnownShape]) -> None:
        channels = input_shape[0][-1]
        for conv in self.tower:
            conv.build((None, None, None, channels))
            channels = self.filters
        bias = 0.0 if self.prior is None else -math.log((1 - self.prior) / self.prior)
        self.predict = conv2d(
            self.outputs,
            3,
            channels,
            kernel_initializer=_normal(),
            bias_initializer=keras.initializers.Constant(bias),
            name="predict",
            dtype=self.dtype_policy,
        )
        self.predict.build((None, None, None, channels))

    def call(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [self._level(x) for x in inputs]

    def _level(self, x):
        for conv in self.tower:
            x = conv(x)
        return ops.cast(self.predict(x), "float32")

    def compute_output_shape(self, input_shape: Any) -> list[Any]:
        return [(*shape[:3], self.outputs) for shape in input_shape]

    def compute_output_spec(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        shapes = self.compute_output_shape([x.shape for x in inputs])
        return [keras.KerasTensor(shape, "float32") for shape in shapes]

    def multiply_adds(self, input_shape: Any) -> int:
        """Count the multiply-adds for one image, given the shapes of all maps."""
        weights = [conv.conv.kernel for conv in self.tower] + [self.predict.kernel]
        products = sum(math.prod(kernel.shape) for kernel in weights)
        return sum(math.prod(shape[1:3]) for shape in input_shape) * products


@keras.saving.register_keras_serializable("kmlp")
class RPNHead(Layer):
    """A 3×3 convolution with ReLU, then objectness and boxes by 1×1 convolutions.

    Args:
        filters: Channels of the 3×3 convolution.
        anchors: Number of anchors at a place.

    Shapes: a map `(N, H, W, C)` to `[(N, H, W, anchors), (N, H, W, 4 · anchors)]`;
    the same layer serves all levels.

    Reference: Ren et al., Faster R-CNN, 2015, Sect. 3.1.
    """

    def __init__(self, filters=256, anchors=3, **kwargs):
        super().__init__(**kwargs)
        self.conv = _biased(self, filters, 3, "conv", _normal(), "relu")
        self.objectness = _biased(self, anchors, 1, "objectness", _normal())
        self.boxes = _biased(self, 4 * anchors, 1, "boxes", _normal())

    def build(self, input_shape: Any) -> None:
        self.conv.build(input_shape)
        for branch in (self.objectness, self.boxes):
            branch.build(self.conv.compute_output_shape(input_shape))

    def call(self, inputs: Tensor) -> list[Tensor]:
        x = self.conv(inputs)
        return [self.objectness(x), self.boxes(x)]

    def compute_output_shape(self, input_shape: Any) -> list[Any]:
        place = tuple(input_shape[:3])
        return [(*place, self.anchors), (*place, 4 * self.anchors)]

    def multiply_adds(self, input_shape: Any) -> int:
        """Count the multiply-adds for one map."""
        between = self.conv.compute_output_shape(input_shape)
        return self.conv.multiply_adds(input_shape) + sum(
            branch.multiply_adds(between) for branch in (self.objectness, self.boxes)
        )


@keras.saving.register_keras_serializable("kmlp")
class BoxHead(Layer):
    """Convolutions, fully connected layers, then classes and boxes of regions.

    Two fully connected layers are the common head ("2FC"), four convolutions and one
    that of the published transformers ("4conv1fc").

    Args:
        num_classes: Number of classes without the background, which is the last logit.
        convs: Number of 3×3 convolutions without bias, with BatchNorm and ReLU.
        filters: Channels of the convolutions.
        units: Units of each fully connected layer, which has ReLU.
        class_agnostic: Whether a region has one box for all classes instead of one
            each.

    Shapes: features `(N, R, size, size, C)` to logits `(N, R, num_classes + 1)` and
    boxes' codes `(N, R, num_classes or 1, 4)`.

    References: Feature Pyramid Networks, Sect. 4.2; Cascade R-CNN, Sect. 4.
    """

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
        self.boxes_per_region = 1 if class_agnostic else num_classes
        self.convolutions = [
            ConvNorm(
                filters,
                3,
                activation="relu",
                kernel_initializer=HE_NORMAL,
                name=f"conv{i}",
                dtype=self.dtype_policy,
            )
            for i in range(convs)
        ]

        def dense(units: int, name: str, **options: Any) -> keras.layers.Dense:
            return keras.layers.Dense(
                units, name=name, dtype=self.dtype_policy, **options
            )

        self.dense = [
            dense(size, f"fc{i}", activation="relu")
            for i, size in enumerate(self.units)
        ]
        boxes = 4 * self.boxes_per_region
        self.classes = dense(num_classes + 1, "classes", kernel_initializer=_normal())
        self.boxes = dense(boxes, "boxes", kernel_initializer=_normal(0.001))

    def build(self, input_shape: Any) -> None:
        _, _, height, width, channels = input_shape
        for conv, shape in _in_a_row(
            self.convolutions, (None, height, width, channels)
        ):
            conv.build(shape)
            channels = self.filters
        inner = height * width * channels
        for dense in self.dense:
            dense.build((None, inner))
            inner = dense.units
        self.classes.build((None, inner))
        self.boxes.build((None, inner))

    def call(self, inputs: Tensor, training: bool | None = None) -> list[Tensor]:
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

    def compute_output_shape(self, input_shape: Any) -> list[Any]:
        region = tuple(input_shape[:2])
        return [(*region, self.num_classes + 1), (*region, self.boxes_per_region, 4)]

    def multiply_adds(self, input_shape: Any) -> int:
        """Count the multiply-adds for one image, all its regions."""
        _, count, *features = input_shape
        dense = [*self.dense, self.classes, self.boxes]
        adds = sum(math.prod(layer.kernel.shape) for layer in dense)
        rows = _in_a_row(self.convolutions, (None, *features))
        return count * (adds + sum(conv.multiply_adds(shape) for conv, shape in rows))


@keras.saving.register_keras_serializable("kmlp")
class MaskHead(Layer):
    """3×3 convolutions, a 2×2 transposed convolution, a mask for each class.

    Args:
        num_classes: Number of classes without the background.
        convs: Number of 3×3 convolutions with bias and ReLU.
        filters: Channels of all of them.

    Shapes: features `(N, R, size, size, C)` to logits
    `(N, R, 2 size, 2 size, num_classes)`.

    Reference: Mask R-CNN, Fig. 4 (right).
    """

    def __init__(self, num_classes, *, convs=4, filters=256, **kwargs):
        super().__init__(**kwargs)
        self.convolutions = [
            _biased(self, filters, 3, f"conv{i}", HE_NORMAL, "relu")
            for i in range(convs)
        ]
        self.upsample = keras.layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            activation="relu",
            data_format="channels_last",
            kernel_initializer=HE_NORMAL.clone(),
            name="upsample",
            dtype=self.dtype_policy,
        )
        self.masks = _biased(self, num_classes, 1, "masks", HE_NORMAL)

    def build(self, input_shape: Any) -> None:
        row = [*self.convolutions, self.upsample, self.masks]
        for layer, shape in _in_a_row(row, (None, *input_shape[2:])):
            layer.build(shape)

    def call(self, inputs: Tensor) -> Tensor:
        count, height, width = inputs.shape[1:4]
        x = ops.reshape(inputs, (-1, *inputs.shape[2:]))
        for conv in self.convolutions:
            x = conv(x)
        x = self.masks(self.upsample(x))
        return ops.reshape(x, (-1, count, 2 * height, 2 * width, self.num_classes))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        batch, count, height, width, _ = input_shape
        return (batch, count, 2 * height, 2 * width, self.num_classes)

    def multiply_adds(self, input_shape: Any) -> int:
        """Count the multiply-adds for one image, all its regions."""
        _, count, height, width, channels = input_shape
        rows = _in_a_row(self.convolutions, (None, height, width, channels))
        adds = sum(conv.multiply_adds(shape) for conv, shape in rows)
        adds += height * width * math.prod(self.upsample.kernel.shape)
        adds += self.masks.multiply_adds((None, 2 * height, 2 * width, self.filters))
        return count * adds
