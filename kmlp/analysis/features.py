"""Take feature maps of each stage, and choose which of their channels to look at."""

import math
from collections.abc import Sequence

import keras
import numpy as np

from kmlp.analysis.maps import (
    checked_images,
    find_map,
    maps_of,
    pyramid_of,
    run_graph,
)
from kmlp.typing import Tensor

# Networks of one resolution show as many maps as the others have stages.
DEPTHS = 4
BATCH = 4


def stage_maps(
    model: keras.Model,
    images: np.ndarray,
    *,
    layers: Sequence[str] | None = None,
    batch_size: int = BATCH,
) -> dict[str, np.ndarray]:
    """Return the maps that end a model's stages.

    These are the levels of its pyramid that have more than one position. A model
    without a pyramid: the last map of each spatial size. A network of a single
    resolution, such as ResMLP: `DEPTHS` maps on its trunk, evenly spaced, from a
    quarter of its depth to its end.

    Args:
        model: Built functional or Sequential `keras.Model` of one input, train form or
            merged.
        images: Images `(N, H, W, C)` as the model takes them.
        layers: Names of maps to take instead, levels of the pyramid or layers, as
            `kmlp.analysis.maps` has them.
        batch_size: Images at a time.

    Returns:
        Maps as `{name: (N, h, w, C) float32}`, `"P2"` or the layer's name, in order.

    Raises:
        InputError: If the model has no maps or no such layer, or images do not fit.

    Reference: ConvMLP (Li et al., 2021), Fig. 4.
    """
    images = checked_images(images)
    if layers is None:
        wanted = _stages(model, images.shape[1:])
    else:
        wanted = [find_map(model, layer) for layer in layers]
    taps = _Taps(model, wanted)
    taps.compile(run_eagerly=True)
    found = taps.predict(images, batch_size, verbose=0)
    return {one.name: np.asarray(m, "float32") for one, m in zip(wanted, found)}


class _Taps(keras.Model):
    """The values of a model's maps as outputs, nested models' too."""

    def __init__(self, model, maps):
        super().__init__()
        self.model, self.maps = model, maps

    def call(self, images: Tensor) -> list[Tensor]:
        seen = dict.fromkeys(id(one.tensor) for one in self.maps)
        run_graph(self.model, images, seen=seen)
        return [seen[id(one.tensor)] for one in self.maps]


def varied_channels(maps: np.ndarray, count: int) -> np.ndarray:
    """Choose channels that differ most from place to place, and from each other.

    The first is the one with the largest variance over the positions, in the mean over
    the images; each further one has the largest variance that is left when what the
    earlier ones show is taken off (a QR decomposition with pivoting). Of equal ones
    it is the first; which they are depends on the maps alone.

    Args:
        maps: Maps `(N, h, w, C)`.
        count: Number of channels; fewer where there are fewer.

    Returns:
        Their numbers, `(count,)`.
    """
    maps = np.asarray(maps, "float64")
    maps = maps - maps.mean((1, 2), keepdims=True)
    rows = maps.reshape(-1, maps.shape[-1])
    products = rows.T @ rows
    chosen: list[int] = []
    for _ in range(min(count, len(products))):
        left = products.diagonal().copy()
        left[chosen] = -1
        best = int(left.argmax())
        chosen.append(best)
        if left[best] > 0:
            part = products[:, best]
            products = products - np.outer(part, part) / left[best]
    return np.array(chosen)


def _stages(model, shape):
    levels = pyramid_of(model)
    if len(levels) > 1:
        sizes = _sizes(model, levels, shape)
        wide = [one for one, size in zip(levels, sizes) if size != (1, 1)]
        return wide or levels
    maps = maps_of(model)
    last = {size: one for one, size in zip(maps, _sizes(model, maps, shape))}
    if len(last) > 1 and not levels:
        return list(last.values())
    trunk = [one for one in maps if one.trunk] or maps
    if not trunk:
        find_map(model)  # which says what is missing
    count = min(DEPTHS, len(trunk))
    ends = [math.ceil((len(trunk) - 1) * (k + 1) / count) for k in range(count)]
    return [trunk[end] for end in dict.fromkeys(ends)]


def _sizes(model, maps, shape):
    """Return the height and width of each map for images of a shape."""
    if all(None not in one.tensor.shape[1:3] for one in maps):
        return [tuple(one.tensor.shape[1:3]) for one in maps]
    found = _Taps(model, maps).compute_output_spec(keras.KerasTensor((1, *shape)))
    return [tuple(values.shape[1:3]) for values in found]
