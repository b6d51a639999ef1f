"""Find the linear layers of a model, by what they connect."""

import dataclasses
import re
from typing import Any

import keras
import numpy as np

from kmlp.errors import InputError
from kmlp.keras_internals import flat_layers
from kmlp.layers.channel_mlp import ChannelMLP
from kmlp.layers.head import ClassifierHead
from kmlp.layers.layer import host
from kmlp.layers.patch_embed import PatchEmbed
from kmlp.layers.patch_mixing import MixingMLP, PositionLinear
from kmlp.layers.perceptrons import GlobalPerceptron, SetSharingLinear

MIXING, CHANNEL, GATE = "patch mixing", "channel", "gate"
EMBEDDING, CONVOLUTION, HEAD = "patch embedding", "convolution", "head"
KINDS = (MIXING, CHANNEL, GATE, EMBEDDING, CONVOLUTION, HEAD)
# The two layers of an MLP, over channels or over patches.
EXPANSION, PROJECTION = "expansion", "projection"
PARTS = (EXPANSION, PROJECTION)

# Kinds of the Dense layers inside a layer, where they are not channel maps.
_INSIDE = (
    (PatchEmbed, EMBEDDING),
    (GlobalPerceptron, GATE),
    (ClassifierHead, HEAD),
)
# A name up to the number of its block.
_BLOCK = re.compile(r".*?block\d+")


@dataclasses.dataclass(frozen=True)
class LinearLayer:
    """A linear layer within a model.

    Attributes:
        name: Names of the layers on the way to it, with slashes between them.
        kind: One of `KINDS`.
        layer: Dense, Conv2D, `SetSharingLinear` or `PositionLinear` itself.
        input_axis: Axis of its kernel that its products are summed over.
        part: Layer of an MLP that it is, one of `PARTS`; `""` elsewhere.
        depth: Number of its block, from 1; of what stands outside of blocks, half a
            step behind the last one: 0.5 for the patch embedding.
    """

    name: str
    kind: str
    layer: Any
    input_axis: int
    part: str = ""
    depth: float = 0.5

    @property
    def block(self) -> str:
        """Return the part of the name that names the block, `""` outside blocks."""
        found = _BLOCK.match(self.name)
        return found[0] if found else ""

    @property
    def kernel(self) -> keras.Variable:
        """Return the kernel as a Keras variable."""
        return self.layer.kernel

    def matrix(self) -> np.ndarray:
        """Return what the layer multiplies by in inference, as a float64 array.

        Of a `SetSharingLinear` with norm and local branches that is not its kernel
        but the one that all of them merge into.
        """
        if isinstance(self.layer, SetSharingLinear):
            return self.layer.equivalent_kernel(host)[0]
        return np.asarray(host(self.layer.kernel))


def linear_layers(model: keras.Model) -> list[LinearLayer]:
    """Return all linear layers of a built model, nested ones too, in its order.

    Depthwise convolutions are none: each of their outputs sums a handful of taps.
    Blocks are told by the layers' names, such as `stage0_block1_ffn`; in a model
    without such names every linear layer counts as a block.

    Args:
        model: Keras model in train form or merged.

    Raises:
        InputError: If the model is not built.
    """
    if not model.built:
        raise InputError(
            "The linear layers of a model without weights are not known: call it on "
            f"data or build() it first. Received: {model.name!r}"
        )
    found = list(_walk(model, "", CHANNEL, set()))
    return [dataclasses.replace(f, depth=d) for f, d in zip(found, _depths(found))]


def _depths(layers):
    if not any(layer.block for layer in layers):
        return [float(number) for number, _ in enumerate(layers, start=1)]
    numbers, depths = {}, []
    for layer in layers:
        if layer.block:
            numbers.setdefault(layer.block, len(numbers) + 1)
        depths.append(numbers.get(layer.block, len(numbers) + 0.5) * 1.0)
    return depths


def _part(owner, layer):
    if not isinstance(owner, ChannelMLP | MixingMLP):
        return ""
    return EXPANSION if layer is owner.fc1 else PROJECTION


def _walk(layer, path, kind, seen):
    for part in flat_layers(layer, include_self=False, recursive=False):
        if id(part) in seen:
            continue
        seen.add(id(part))
        name = path + part.name
        if isinstance(part, SetSharingLinear):
            yield LinearLayer(name, MIXING, part, 2)
        elif isinstance(part, PositionLinear):
            yield LinearLayer(name, MIXING, part, 1, _part(layer, part))
        elif isinstance(part, keras.layers.Dense):
            yield LinearLayer(name, kind, part, 0, _part(layer, part))
        elif type(part) is keras.layers.Conv2D:
            yield LinearLayer(name, CONVOLUTION, part, 2)
        else:
            own = (k for kinds, k in _INSIDE if isinstance(part, kinds))
            yield from _walk(part, f"{name}/", next(own, kind), seen)
