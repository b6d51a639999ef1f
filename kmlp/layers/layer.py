"""The base of every layer of the library: its arguments, its parts and its copies.

A layer that has an equivalent, simpler inference form has a method `merged()`
that returns a new, built layer holding the folded weights. That method is the
whole protocol of `kmlp.merge`. Layers that know their cost answer
`multiply_adds(input_shape)`.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.layers.initializers import initializer, start
from kmlp.typing import Config, Shape, Tensor

# Arguments that a Keras layer keeps itself.
_OF_KERAS = frozenset(inspect.signature(keras.layers.Layer.__init__).parameters)


def record_arguments(cls: type) -> None:
    """Make the constructor of `cls` leave its arguments for `recorded_arguments`.

    Each class of a hierarchy records the arguments that its own signature names, with
    their defaults; where two name the same, the value that reached the base counts.
    """
    init = vars(cls).get("__init__")
    if init is None:
        return
    signature = inspect.signature(init)
    packed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind not in packed and name not in _OF_KERAS
    ]

    @functools.wraps(init)
    def recording(self, *args: Any, **kwargs: Any) -> None:
        # A call that does not fit fails below, in Python's words.
        with contextlib.suppress(TypeError):
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            values = {name: _frozen(bound.arguments[name]) for name in names}
            vars(self).setdefault("_arguments", {}).update(values)
        init(self, *args, **kwargs)

    # Keras reads the signature without looking behind a wrapper.
    vars(recording)["__signature__"] = signature
    setattr(cls, "__init__", recording)  # noqa: B010


def recorded_arguments(instance: Any) -> Config:
    """Return the arguments of the constructors that are running, lists as tuples."""
    return dict(vars(instance).get("_arguments", {}))


def _frozen(value):
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


class Layer(keras.layers.Layer):
    """A Keras layer that keeps the arguments of its constructor.

    The signature of `__init__` is the one place that names them. Once this class's
    `__init__` has run, each is the attribute of its name, defaults included, and an
    entry of the configuration. Lists become tuples, and arguments that end in
    `_initializer` become initializers with a random state of their own. An attribute
    that a subclass assigns anew is what its configuration holds.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        record_arguments(cls)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        arguments = recorded_arguments(self)
        self._arguments = tuple(arguments)
        for name, value in arguments.items():
            if name.endswith("_initializer"):
                value = initializer(value)
            setattr(self, name, value)

    def get_config(self) -> Config:
        own = {name: getattr(self, name) for name in self._arguments}
        for name, value in own.items():
            if isinstance(value, keras.initializers.Initializer):
                own[name] = keras.initializers.serialize(value)
        return {**super().get_config(), **own}

    def compute_output_shape(self, input_shape: Any) -> Any:
        return tuple(input_shape)

    def _dense(self, units, name, width, **options):
        """Return a Dense for `width` inputs, with a random state of its own."""
        kernel, bias = start(self.kernel_initializer, width)
        dense = keras.layers.Dense(
            units,
            kernel_initializer=kernel,
            bias_initializer=bias,
            name=name,
            dtype=self.dtype_policy,
            **options,
        )
        dense.build((None, width))
        return dense

    def _bias(self, *shape, start="zeros"):
        """Return a bias, `None` where `use_bias` is false."""
        if not self.use_bias:
            return None
        return self.add_weight(name="bias", shape=shape, initializer=start)

    def _gamma(self, channels):
        """Return a scale per channel that starts at `layer_scale`, if that is given."""
        if self.layer_scale is None:
            return None
        start = keras.initializers.Constant(self.layer_scale)
        return self.add_weight(name="gamma", shape=(channels,), initializer=start)


def host(variable: Any) -> Any:
    """Return a variable's value as a float64 NumPy array; `None` stays `None`."""
    if variable is None:
        return None
    return keras.ops.convert_to_numpy(variable.value).astype("float64")


def tensor(variable: Any) -> Tensor:
    """Return a variable's value as a backend tensor; `None` stays `None`."""
    return None if variable is None else keras.ops.convert_to_tensor(variable)


def assign(layer: keras.Layer, **values: Any) -> None:
    """Set the named variables of `layer` (attributes) to arrays.

    Raises:
        InputError: If a value does not have its variable's shape.
    """
    for name, value in values.items():
        variable = getattr(layer, name)
        if variable is None:
            continue
        value = np.broadcast_to(np.asarray(value), variable.shape)
        variable.assign(value.astype(keras.backend.standardize_dtype(variable.dtype)))


def remade(layer: keras.Layer, config: Config) -> keras.Layer:
    """Return a new layer of the same class from a configuration, built, unfilled."""
    twin = layer.__class__.from_config(config)
    if layer.built:
        twin.build_from_config(layer.get_build_config() or {})
        twin.built = True
    return twin


def copy(layer: keras.Layer, **changes: Any) -> keras.Layer:
    """Return a new layer of the same class, built alike, with a changed config.

    The weights are copied unless there are changes; then the caller fills them.
    """
    twin = remade(layer, {**layer.get_config(), **changes})
    if not changes and layer.weights:
        twin.set_weights(layer.get_weights())
    return twin


def like(inputs: Tensor) -> Tensor:
    """Return a map's shape for `ops.reshape`, its batch as -1 if the rest is known.

    So a graph of known sizes computes no shapes.
    """
    known = tuple(inputs.shape[1:])
    return ops.shape(inputs) if None in known else (-1, *known)


def strided(sizes: Shape, strides: Iterable[int]) -> list[int | None]:
    """Return how many strides cover each size; unknown sizes stay unknown."""
    return [None if s is None else -(-s // t) for s, t in zip(sizes, strides)]


def kernel_products(shape: Sequence[Any], *kernels: Any) -> int:
    """Return the multiply-adds of kernels that apply at every position of a map."""
    taps = sum(math.prod(kernel.shape) for kernel in kernels if kernel is not None)
    return math.prod(shape[1:-1]) * taps


def pair(value: int | Iterable[int], argument: str) -> tuple[int, int]:
    """Return `k` or `(kh, kw)` as a pair of positive integers.

    Raises:
        InputError: If it is neither; the message names `argument`.
    """
    values = (value, value) if isinstance(value, int) else tuple(value)
    if len(values) != 2 or any(not isinstance(v, int) or v < 1 for v in values):
        raise InputError(
            f"`{argument}` takes a positive integer or a pair of them. "
            f"Received: {argument}={value!r}"
        )
    return values


def optional_pair(value: int | Iterable[int] | None, argument: str) -> Any:
    """Return `value` as a pair; `None` stays `None`."""
    return None if value is None else pair(value, argument)


def gelu(x: Tensor) -> Tensor:
    """Return the exact GELU, `x * Phi(x)`, which all five papers use.

    Written with erf: in this form the CPU kernels fuse it into the matrix product
    before it.
    """
    return x * (0.5 * (1.0 + ops.erf(x * 0.5**0.5)))


def activation_function(name: str | None) -> Callable[[Tensor], Tensor]:
    """Return a Keras activation by name; `"gelu"` is the exact one."""
    return gelu if name == "gelu" else keras.activations.get(name)


def drop_path(rate: float, *, name: str, dtype: Any = None) -> keras.Layer:
    """Return a layer that drops whole samples of a residual branch in training.

    Kept samples are scaled up by `1 / (1 - rate)`; Keras' Dropout does this when
    one draw serves all positions and channels.

    Reference: Huang et al., 2016, Deep Networks with Stochastic Depth.
    """
    return keras.layers.Dropout(
        rate, noise_shape=(None, 1, 1, 1), name=name, dtype=dtype
    )


def drop_path_rates(rate: float, blocks: int) -> list[float]:
    """Return rates rising linearly from 0 at the first to `rate` at the last block.

    Raises:
        InputError: If `rate` does not lie in [0, 1).
    """
    if not 0 <= rate < 1:
        raise InputError(
            f"`drop_path_rate` must lie in [0, 1). Received: drop_path_rate={rate}"
        )
    return [rate * i / max(blocks - 1, 1) for i in range(blocks)]
