"""The linear layers of a model, by what they connect."""

import dataclasses

import keras
import numpy as np

from kmlp.layers import (
    ClassifierHead,
    GlobalPerceptron,
    PatchEmbed,
    PositionLinear,
    SetSharingLinear,
)
from kmlp.layers.base import host

MIXING, CHANNEL, GATE = "patch mixing", "channel", "gate"
EMBEDDING, CONVOLUTION, HEAD = "patch embedding", "convolution", "head"
KINDS = (MIXING, CHANNEL, GATE, EMBEDDING, CONVOLUTION, HEAD)

# What the Dense layers inside of a layer are, where they are not channel maps.
_INSIDE = (
    (PatchEmbed, EMBEDDING),
    (GlobalPerceptron, GATE),
    (ClassifierHead, HEAD),
)


@dataclasses.dataclass(frozen=True)
class LinearLayer:
    """A linear layer within a model.

    Attributes:
        name: names of the layers on the way to it, with slashes between them.
        kind: one of `KINDS`.
        layer: the Dense, Conv2D, `SetSharingLinear` or `PositionLinear` itself.
        input_axis: of its kernel, the axis that its products are summed over.
    """

    name: str
    kind: str
    layer: keras.Layer
    input_axis: int

    @property
    def kernel(self):
        """The kernel as a Keras variable."""
        return self.layer.kernel

    def matrix(self):
        """What the layer multiplies by in inference, as a float64 array.

        Of a `SetSharingLinear` with norm and local branches that is not its kernel
        but the one that all of them merge into.
        """
        if isinstance(self.layer, SetSharingLinear):
            return self.layer.equivalent_kernel(host)[0]
        return np.asarray(host(self.layer.kernel))


def linear_layers(model):
    """All linear layers of a built model, nested ones too, in its order.

    Depthwise convolutions are none: each of their outputs sums a handful of taps.

    Args:
        model: a `keras.Model`, train form or merged.

    Returns:
        A list of `LinearLayer`.

    Raises:
        ValueError: the model is not built.
    """
    if not model.built:
        raise ValueError(
            "The linear layers of a model without weights are not known: call it on "
            f"data or build() it first. Received: {model.name!r}"
        )
    return list(_walk(model, "", CHANNEL, set()))


def _walk(layer, path, kind, seen):
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if id(part) in seen:
            continue
        seen.add(id(part))
        name = path + part.name
        if isinstance(part, SetSharingLinear):
            yield LinearLayer(name, MIXING, part, input_axis=2)
        elif isinstance(part, PositionLinear):
            yield LinearLayer(name, MIXING, part, input_axis=1)
        elif isinstance(part, keras.layers.Dense):
            yield LinearLayer(name, kind, part, input_axis=0)
        elif type(part) is keras.layers.Conv2D:
            yield LinearLayer(name, CONVOLUTION, part, input_axis=2)
        else:
            own = (k for kinds, k in _INSIDE if isinstance(part, kinds))
            yield from _walk(part, f"{name}/", next(own, kind), seen)
