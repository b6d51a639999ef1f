"""Rebuild merged fully connected models as models of `tf_keras`.

tensorflow-model-optimization clusters and quantises `tf_keras` models only. A merged
RepMLPNet or ResMLP is Dense layers, scales, sums and moves of data, and so can be
rebuilt layer by layer.
"""

import dataclasses
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kmlp.compression.tfmot import import_tfmot
from kmlp.errors import InputError
from kmlp.merging import merge

if TYPE_CHECKING:  # it imports tf_keras
    from kmlp.compression.twin_builder import Link


@dataclasses.dataclass(frozen=True)
class Twin:
    """A merged model and its equal in `tf_keras`.

    Attributes:
        merged: Keras 3 model.
        model: A `tf_keras.Model`.
        links: A `Link` per weight.
    """

    merged: keras.Model
    model: Any
    links: "tuple[Link, ...]"

    def kernels(self, kinds: Collection[str]) -> "dict[str, Link]":
        """Return `{layer of the twin: Link}` of the kernels of some kinds."""
        return {link.layer: link for link in self.links if link.kind in kinds}

    def back(self, read: "Callable[[Link], Any] | None" = None) -> keras.Model:
        """Return a copy of the merged model with the twin's weights.

        Args:
            read: Function of a `Link` to the weight's value now; `None`: as the
                twin's own layers hold it.
        """
        read = read or (
            lambda link: getattr(self.model.get_layer(link.layer), link.attribute)
        )
        values = [np.array(keras.ops.convert_to_numpy(v)) for v in self.merged.weights]
        place = {id(v): value for v, value in zip(self.merged.weights, values)}
        for link in self.links:
            link.fill(place[id(link.variable)], read(link))
        copy = merge(self.merged, check=False)  # of what is merged, a copy
        copy.set_weights(values)
        return copy


def twin(model: keras.Model) -> Twin:
    """Return the `tf_keras` twin of a merged, fully connected model.

    Args:
        model: Merged RepMLPNet or ResMLP, `kmlp.merge(model)`, in float32.

    Returns:
        A `Twin`; its model gives the outputs of `model` in inference.

    Raises:
        InputError: If the model is not merged, or has a layer without a twin.
        ImportError: If tensorflow-model-optimization is missing.
    """
    import_tfmot()
    from kmlp.compression.twin_builder import Builder

    if not hasattr(model, "_nodes_by_depth"):
        raise InputError(
            f"A twin is made of a functional keras.Model. Received: {model!r}"
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            "A twin has one input and one output. Received: "
            f"{len(model.inputs)} and {len(model.outputs)} of {model.name!r}"
        )
    builder = Builder(model)
    return Twin(model, builder.model, tuple(builder.links))
