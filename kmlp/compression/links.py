"""Which weight of a twin is which variable of the model."""

import dataclasses
import math

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Link:
    """Where a variable, or a share-set's part of it, is in the twin.

    Attributes:
        variable: of the merged model.
        layer, attribute: name of the twin's layer, and of its weight there.
        shape: of that weight.
        index: of the share-set, where the variable holds all of them, else `None`.
        transposed: whether the weight is the transpose.
        kind: of the linear layer, as in `kmlp.analysis.linear.KINDS`, where the
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
    def size(self):
        """Number of weights."""
        return math.prod(self.shape)

    def value(self):
        """The variable's value, as the twin holds it."""
        value = keras.ops.convert_to_numpy(self.variable)
        value = value if self.index is None else value[self.index]
        value = value.T if self.transposed else value
        return value.reshape(self.shape)

    def fill(self, array, value):
        """Writes the twin's value into an array like the variable."""
        part = array if self.index is None else array[self.index]
        value = np.asarray(value)
        part[...] = (value.T if self.transposed else value).reshape(part.shape)
