"""The few layers that a twin needs beyond those of `tf_keras`."""

import tensorflow as tf
import tf_keras


class Layer(tf_keras.layers.Layer):
    """A `tf_keras` layer whose configuration is declared once, in `arguments`."""

    arguments: tuple[str, ...] = ()

    def get_config(self):
        own = {name: getattr(self, name) for name in self.arguments}
        return {**super().get_config(), **own}


class Reshape(Layer):
    """Reshapes to `shape`, in which the batch takes part; one size may be -1."""

    arguments = ("shape",)

    def __init__(self, shape, **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, inputs):
        return tf.reshape(inputs, self.shape)


class Transpose(Layer):
    """Permutes all axes, the batch included."""

    arguments = ("axes",)

    def __init__(self, axes, **kwargs):
        super().__init__(**kwargs)
        self.axes = tuple(axes)

    def call(self, inputs):
        return tf.transpose(inputs, self.axes)


class Unstack(Layer):
    """The parts along the first axis, of which there are `count`."""

    arguments = ("count",)

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def call(self, inputs):
        return tf.unstack(inputs, self.count, axis=0)


class Stack(Layer):
    """Parts along a new first axis."""

    def call(self, inputs):
        return tf.stack(inputs, axis=0)


class Scale(Layer):
    """A factor per channel."""

    def build(self, input_shape):
        self.scale = self.add_weight("scale", input_shape[-1:], initializer="ones")
        super().build(input_shape)

    def call(self, inputs):
        return inputs * self.scale


class Shift(Layer):
    """A summand of some trailing axes.

    Args:
        shift_shape: their sizes, the channels last.
    """

    arguments = ("shift_shape",)

    def __init__(self, shift_shape, **kwargs):
        super().__init__(**kwargs)
        self.shift_shape = tuple(shift_shape)

    def build(self, input_shape):
        self.shift = self.add_weight("shift", self.shift_shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        return inputs + self.shift


LAYERS = {c.__name__: c for c in (Reshape, Transpose, Unstack, Stack, Scale, Shift)}
