"""What Keras' layers and operations are to one who follows what a model does."""

import keras


def names(text):
    """The words of a text, as a set."""
    return frozenset(text.split())


# Keras' operations that are matrix products or convolutions.
_PRODUCTS = names(
    "Conv ConvTranspose DepthwiseConv Dot Einsum Inner Matmul SeparableConv "
    "Tensordot Vdot"
)
_PRODUCT_LAYERS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Dot,
    *(
        getattr(keras.layers, f"{kind}{axes}D{transposed}")
        for kind, axes, transposed in (
            *(("Conv", n, end) for n in (1, 2, 3) for end in ("", "Transpose")),
            *(("DepthwiseConv", n, "") for n in (1, 2)),
            *(("SeparableConv", n, "") for n in (1, 2)),
        )
    ),
)


def is_composite(operation):
    """Whether an operation is a layer whose `call` is to be opened."""
    if not isinstance(operation, keras.Layer):
        return False
    owner = next(c for c in type(operation).__mro__ if "call" in vars(c))
    return bool(operation._layers) or not owner.__module__.startswith("keras.")


def multiplies(layer, args):
    """Whether a layer says that it is a linear map or holds one."""
    shapes = [tuple(t.shape) for t in tensors_in(args)]
    counts = len(shapes) == 1 and hasattr(layer, "multiply_adds")
    return counts and layer.multiply_adds(shapes[0]) > 0


def kind_of(operation):
    """Keras' class of an operation; of a layer to be opened its own."""
    if is_composite(operation):
        return type(operation).__name__
    owners = (c for c in type(operation).__mro__ if c.__module__.startswith("keras."))
    return next(owners).__name__


def is_product(operation):
    """Whether an operation is a matrix product or a convolution."""
    if isinstance(operation, keras.Layer):
        return isinstance(operation, _PRODUCT_LAYERS)
    return type(operation).__name__ in _PRODUCTS


def tensors_in(structure):
    """The symbolic tensors in nested lists, tuples and dictionaries, in order."""
    return [
        t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)
    ]
