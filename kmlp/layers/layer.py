"""The base of every layer of the library: its arguments, its parts and its copies.

A layer that has an equivalent, simpler inference form has a method `merged()`
that returns a new, built layer holding the folded weights. That method is the
whole protocol of `kmlp.merge`. Layers that know their cost answer
`multiply_adds(input_shape)`.
"""

import contextlib
import functools
import inspect
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.keras_internals import flat_layers, lambda_arguments, random_states
from kmlp.layers.initializers import initializer, start
from kmlp.typing import Config, Shape, Tensor

# The entry of a configuration that says which parts are quantized.
QUANTIZED = "quantized"

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

    def get_build_config(self) -> Config | None:
        config = super().get_build_config()
        return config and {**config, **quantized_parts(self)}

    def build_from_config(self, config: Config) -> None:
        super().build_from_config(config)
        quantize_parts(self, config.get(QUANTIZED, {}))

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
    # A kernel with LoRA is no variable but a sum.
    value = getattr(variable, "value", variable)
    return keras.ops.convert_to_numpy(value).astype("float64")


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
    """Return a new layer of the same class from a configuration, built, unfilled.

    LoRA is left out: what it has learned becomes part of the kernel where the layer is
    filled.
    """
    if getattr(layer, "lora_enabled", False):
        config = {k: v for k, v in config.items() if not k.startswith("lora_")}
    if isinstance(layer, keras.layers.Lambda):
        # Its function is at hand, and Keras reads none from a configuration.
        twin = layer.__class__(**{**config, **lambda_arguments(layer)})
    else:
        # Wrappers look the classes of their parts up by name.
        classes = {type(part).__name__: type(part) for part in flat_layers(layer)}
        with keras.saving.custom_object_scope(classes):
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
    if not changes:
        fill(twin, layer)
    return twin


def fill(twin: keras.Layer, layer: keras.Layer) -> None:
    """Give a layer and its parts the state of its equal.

    It goes the way of Keras' files, which holds more than `get_weights`: what a layer
    makes of its weights, vocabularies, and states of random numbers.

    Raises:
        InputError: If they do not have the same parts.
    """
    new, old = flat_layers(twin), flat_layers(layer)
    if len(new) != len(old):
        raise InputError(
            f"{layer.name!r} ({type(layer).__name__}) has parts that its configuration "
            "does not make: let __init__ or build() make all of them. "
            f"Received: {len(old) - 1} parts, and {len(new) - 1} from the configuration"
        )
    for pair in zip(new, old):
        fill_own(*pair)


def fill_own(twin: keras.Layer, layer: keras.Layer) -> None:
    """Give a layer the state of its equal, without that of its parts."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    for name, value in store.items():
        store[name] = keras.ops.convert_to_numpy(getattr(value, "value", value))
    twin.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            twin.load_assets(folder)
    for new, old in zip(_unsaved(twin), _unsaved(layer), strict=True):
        new.assign(old)


def _unsaved(layer):
    """Return the variables of a layer that no file holds, such as a recurrent state."""
    tracked = {id(variable) for variable in layer.variables}
    values = [v if isinstance(v, list | tuple) else [v] for v in vars(layer).values()]
    return random_states(layer) + [
        value
        for value in itertools.chain(*values)
        if isinstance(value, keras.Variable) and id(value) not in tracked
    ]


@contextlib.contextmanager
def replaced(layer: keras.Layer, name: str, value: Any) -> Iterator[None]:
    """Give a layer another method or attribute for the time of the block."""
    own = vars(layer).get(name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(layer, name)
        else:
            setattr(layer, name, own)


def quantized_parts(layer: keras.Layer) -> Config:
    """Return an entry of a configuration for what `quantize` made of parts, if any."""
    found = {
        str(number): keras.saving.serialize_keras_object(part.quantization_config)
        for number, part in enumerate(flat_layers(layer))
        if getattr(part, "quantization_config", None) is not None
    }
    return {QUANTIZED: found} if found else {}


def quantize_parts(layer: keras.Layer, entry: Config) -> None:
    """Quantize the parts that the entry of `quantized_parts` names, to be filled."""
    parts = flat_layers(layer)
    for number, how in entry.items():
        how = keras.saving.deserialize_keras_object(how)
        parts[int(number)].quantize(config=how)


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

    Written with erf, and grouped so: in this form TensorFlow's CPU kernels fuse it
    into the matrix product before it, and converters know it as one operation.
    """
    return (x * 0.5) * (ops.erf(x * 0.5**0.5) + 1.0)


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
