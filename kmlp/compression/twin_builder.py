"""Build the twin of a merged model from its graph."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from kmlp import layers as ours
from kmlp.analysis.linear import CHANNEL, EMBEDDING, GATE, HEAD, MIXING
from kmlp.errors import InputError
from kmlp.keras_internals import nodes_by_depth
from kmlp.typing import Config, Tensor

_ADVICE = (
    "A twin is made of merged RepMLPNets and ResMLPs in float32: merge the model first "
    "(kmlp.merge)"
)
# Layers that training has and merging removes, except layer norms.
_TRAIN_FORM = ("normalize", "norm1", "norm2", "branches", "gamma")


@dataclasses.dataclass(frozen=True)
class Link:
    """The place of a variable, or of a share-set's part of it, in the twin.

    Attributes:
        variable: Variable of the merged model.
        layer: Name of the twin's layer.
        attribute: Name of the weight there.
        shape: Shape of that weight.
        index: Number of the share-set, where the variable holds all of them.
        transposed: Whether the weight is the transpose.
        kind: Kind of the linear layer, of `kmlp.analysis.linear.KINDS`, where the
            weight is a kernel, else `None`.
    """

    variable: keras.Variable
    layer: str
    attribute: str
    shape: tuple[int, ...]
    index: int | None = None
    transposed: bool = False
    kind: str | None = None

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return math.prod(self.shape)

    def value(self) -> np.ndarray:
        """Return the variable's value, as the twin holds it."""
        value = keras.ops.convert_to_numpy(self.variable)
        value = value if self.index is None else value[self.index]
        value = value.T if self.transposed else value
        return value.reshape(self.shape)

    def fill(self, array: np.ndarray, value: Any) -> None:
        """Write the twin's value into an array like the variable."""
        part = array if self.index is None else array[self.index]
        value = np.asarray(value)
        part[...] = (value.T if self.transposed else value).reshape(part.shape)


class Layer(tf_keras.layers.Layer):
    """A `tf_keras` layer whose only argument is named once, as `argument`."""

    argument = ""

    def __init__(self, *value: Any, **kwargs: Any) -> None:
        if self.argument and not value:
            value = (kwargs.pop(self.argument),)  # from a configuration
        super().__init__(**kwargs)
        for own in value:
            own = tuple(own) if isinstance(own, list) else own
            setattr(self, self.argument, own)

    def get_config(self) -> Config:
        own = {self.argument: getattr(self, self.argument)} if self.argument else {}
        return {**super().get_config(), **own}


class Reshape(Layer):
    """Reshape to `shape`, in which the batch takes part; one size may be -1."""

    argument = "shape"

    def call(self, inputs: Tensor) -> Tensor:
        return tf.reshape(inputs, self.shape)


class Transpose(Layer):
    """Permute all axes, the batch included."""

    argument = "axes"

    def call(self, inputs: Tensor) -> Tensor:
        return tf.transpose(inputs, self.axes)


class Unstack(Layer):
    """Take the parts along the first axis, of which there are `count`."""

    argument = "count"

    def call(self, inputs: Tensor) -> list[Tensor]:
        return tf.unstack(inputs, self.count, axis=0)


class Stack(Layer):
    """Stack parts along a new first axis."""

    def call(self, inputs: list[Tensor]) -> Tensor:
        return tf.stack(inputs, axis=0)


class Scale(Layer):
    """Multiply by a factor per channel."""

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight("scale", input_shape[-1:], initializer="ones")
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self.scale


class Shift(Layer):
    """Add a summand of some trailing axes, whose sizes are `shift_shape`."""

    argument = "shift_shape"

    def build(self, input_shape: Any) -> None:
        self.shift = self.add_weight("shift", self.shift_shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return inputs + self.shift


LAYERS = {c.__name__: c for c in (Reshape, Transpose, Unstack, Stack, Scale, Shift)}


class Builder:
    """The walk through a merged model that builds its twin.

    Every method that takes a layer of ours gives back the twin's tensor of its
    output; the layers that it makes are named after the layer and their part in it.

    Args:
        merged: Functional model with one input and one output.

    Attributes:
        model: Twin.
        links: A `Link` for every weight of it.
    """

    def __init__(self, merged: keras.Model) -> None:
        self.links: list[Link] = []
        self._name = ""
        images = tf_keras.Input(merged.inputs[0].shape[1:], name="images")
        tensors = {id(merged.inputs[0]): images}
        nodes = nodes_by_depth(merged)
        for node in (n for depth in sorted(nodes, reverse=True) for n in nodes[depth]):
            if not node.is_input:
                inputs = [tensors[id(tensor)] for tensor in node.input_tensors]
                rebuild = self._method(node.operation)
                tensors[id(node.outputs[0])] = rebuild(self, node.operation, *inputs)
        output = tensors[id(merged.outputs[0])]
        self.model = tf_keras.Model(images, output, name=merged.name)

    def _method(self, layer):
        """Return the method that rebuilds a layer, once it is sure that it can be."""
        self._name = layer.name
        received = f"Received: {layer.name!r}, a {type(layer).__name__}"
        rebuild = _METHODS.get(type(layer))
        if rebuild is None:
            raise InputError(f"{_ADVICE}. {received}, which has no twin")
        if layer.dtype_policy.name != "float32":
            raise InputError(f"{_ADVICE}. {received} in {layer.dtype_policy.name}")
        parts = (getattr(layer, name, None) for name in _TRAIN_FORM)
        if any(p not in (None, []) for p in parts) or not getattr(layer, "folded", 1):
            raise InputError(
                f"{_ADVICE}; norms and local branches have no twin. {received} in its "
                "train form or with a layer norm"
            )
        return rebuild

    def _patch_embed(self, layer, x):
        _, height, width, channels = x.shape
        ph, pw = layer.patch_size
        if height % ph or width % pw:
            x = self._pad(x, -height % ph, -width % pw)
        rows, columns = -(-height // ph), -(-width // pw)
        # (N, h·p, w·p, C) -> (N, h, w, p, p·C) -> (N·h·w, p·p·C)
        x = self._reshape("patches", x, -1, rows, ph, columns, pw * channels)
        x = self._transpose("order", x, 0, 1, 3, 2, 4)
        x = self._reshape("rows", x, -1, ph * pw * channels)
        x = self._dense("dense", x, layer.dense, EMBEDDING, layer.activation)
        return self._reshape("map", x, -1, rows, columns, layer.filters)

    def _affine(self, layer, x):
        return self._scale_shift(x, layer.alpha, layer.beta, x.shape[-1:])

    def _set_sharing(self, layer, x):
        return self._joined(layer.partition, self._mixed(layer, x))

    def _cross_patch(self, layer, x):
        x, partition = self._mixed(layer.mix, x), layer.mix.partition
        if partition.padded:  # the shift is the map's, and no block's
            x = self._joined(partition, x)
            return self._scale_shift(x, layer.scale, layer.shift, x.shape[1:])
        x = self._scale_shift(x, layer.scale, layer.shift, x.shape[1:])
        return self._joined(partition, x)

    def _mixed(self, layer, x):
        """Rebuild `SetSharingLinear`, from maps to blocks `(B, hw, C)`.

        One Dense per share-set: each is quantised, and clustered, by itself.
        """
        sets, length = layer.share_sets, layer.partition.length
        height, width, channels = layer.partition.map_shape
        (h, w), (rows, columns) = layer.partition.block_size, layer.partition.tiles
        groups = channels // sets
        x = self._pad(x, rows * h - height, columns * w - width)
        if rows * columns > 1:
            # (N, H, W, C) -> (N·H/h·W/w, h, w, C)
            x = self._reshape("cut", x, -1, rows, h, columns, w * channels)
            x = self._transpose("blocks", x, 0, 1, 3, 2, 4)
        # (B, hw, C/S, S) -> (S, B, C/S, hw)
        x = self._reshape("sets", x, -1, length, groups, sets)
        x = self._transpose("positions_last", x, 3, 0, 2, 1)
        x = self._reshape("rows", x, sets, -1, length)
        parts = Unstack(sets, name=f"{self._name}_unstack")(x)
        # (B·C/S, hw) each
        parts = [self._set(layer, index, part) for index, part in enumerate(parts)]
        x = Stack(name=f"{self._name}_stack")(parts)
        x = self._reshape("samples", x, sets, -1, groups, length)
        x = self._transpose("channels_last", x, 1, 3, 2, 0)
        return self._reshape("together", x, -1, length, channels)

    def _set(self, layer, index, x):
        dense = tf_keras.layers.Dense(
            layer.partition.length,
            use_bias=layer.bias is not None,
            name=f"{self._name}_set{index}",
        )
        x = dense(x)
        kernel = {"index": index, "transposed": True, "kind": MIXING}
        self._link(dense, "kernel", layer.kernel, **kernel)
        if layer.bias is not None:
            self._link(dense, "bias", layer.bias, index=index)
        return x

    def _joined(self, partition, x):
        """Bring blocks to maps."""
        height, width, channels = partition.map_shape
        (h, w), (rows, columns) = partition.block_size, partition.tiles
        if rows * columns > 1:
            x = self._reshape("joint", x, -1, rows, columns, h, w * channels)
            x = self._transpose("rows_joint", x, 0, 1, 3, 2, 4)
        x = self._reshape("map", x, -1, rows * h, columns * w, channels)
        if not partition.padded:
            return x
        margins = ((0, rows * h - height), (0, columns * w - width))
        return tf_keras.layers.Cropping2D(margins, name=f"{self._name}_crop")(x)

    def _channel_mlp(self, layer, x):
        shape = x.shape[1:]
        x = self._reshape("rows", x, -1, shape[-1])
        x = self._dense("fc1", x, layer.fc1, CHANNEL, layer.activation)
        x = self._dense("fc2", x, layer.fc2, CHANNEL)
        return self._reshape("map", x, -1, *shape)

    def _global_perceptron(self, layer, x):
        channels = x.shape[-1]
        x = self._mean(x)
        x = self._dense("fc1", x, layer.fc1, GATE, "relu")
        x = self._dense("fc2", x, layer.fc2, GATE, "sigmoid")
        return self._reshape("gate", x, -1, 1, 1, channels)

    def _head(self, layer, x):
        x = self._mean(x)
        return self._dense("dense", x, layer.dense, HEAD, layer.activation)

    def _dropout(self, layer, x):
        return x  # a twin is fine-tuned without

    def _add(self, layer, *x):
        return tf_keras.layers.Add(name=layer.name)(x)

    def _multiply(self, layer, *x):
        return tf_keras.layers.Multiply(name=layer.name)(x)

    def _pad(self, x, bottom, right):
        if not bottom + right:
            return x
        margins = ((0, bottom), (0, right))
        return tf_keras.layers.ZeroPadding2D(margins, name=f"{self._name}_pad")(x)

    def _reshape(self, part, x, *shape):
        return Reshape(shape, name=f"{self._name}_{part}")(x)

    def _transpose(self, part, x, *axes):
        return Transpose(axes, name=f"{self._name}_{part}")(x)

    def _mean(self, x):
        return tf_keras.layers.GlobalAveragePooling2D(name=f"{self._name}_mean")(x)

    def _scale_shift(self, x, scale, shift, shift_shape):
        scaled = Scale(name=f"{self._name}_scale")
        shifted = Shift(shift_shape, name=f"{self._name}_shift")
        x = shifted(scaled(x))
        self._link(scaled, "scale", scale)
        self._link(shifted, "shift", shift)
        return x

    def _dense(self, part, x, dense, kind, activation=None):
        """Apply a Dense layer to rows. ReLU is part of it, as in TFLite."""
        name = f"{self._name}_{part}"
        fused = activation if activation == "relu" else None
        layer = tf_keras.layers.Dense(
            dense.units, use_bias=dense.use_bias, activation=fused, name=name
        )
        x = layer(x)
        self._link(layer, "kernel", dense.kernel, kind=kind)
        if dense.use_bias:
            self._link(layer, "bias", dense.bias)
        if activation in (None, "linear", "relu"):
            return x
        return tf_keras.layers.Activation(activation, name=f"{name}_activation")(x)

    def _link(self, layer, attribute, variable, **where):
        weight = getattr(layer, attribute)
        link = Link(variable, layer.name, attribute, tuple(weight.shape), **where)
        weight.assign(link.value())
        self.links.append(link)


_METHODS = {
    keras.layers.Add: Builder._add,
    keras.layers.Dropout: Builder._dropout,
    keras.layers.Multiply: Builder._multiply,
    ours.Affine: Builder._affine,
    ours.ChannelMLP: Builder._channel_mlp,
    ours.ClassifierHead: Builder._head,
    ours.CrossPatch: Builder._cross_patch,
    ours.GlobalPerceptron: Builder._global_perceptron,
    ours.PatchEmbed: Builder._patch_embed,
    ours.SetSharingLinear: Builder._set_sharing,
}
