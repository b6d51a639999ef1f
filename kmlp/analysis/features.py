"""Feature maps of each stage, and which of their channels to look at."""

import math

import keras
import numpy as np

from kmlp.analysis.gradients import evaluated
from kmlp.analysis.maps import (
    calls_of,
    checked_images,
    find_map,
    graph_of,
    maps_of,
    pyramid_of,
    run_graph,
)

# Of networks of one resolution: as many maps as the others have stages.
DEPTHS = 4
BATCH = 4


def stage_maps(model, images, *, layers=None, batch_size=BATCH):
    """The maps that end a model's stages.

    These are the levels of its pyramid that have more than one position. A model
    without a pyramid: the last map of each spatial size. A network of a single
    resolution, such as ResMLP: `DEPTHS` maps on its trunk, evenly spaced, from a
    quarter of its depth to its end.

    Args:
        model: a built functional or Sequential `keras.Model` of one input, train form
            or merged.
        images: `(N, H, W, C)` as the model takes them.
        layers: names of maps to take instead, levels of the pyramid or layers, as
            `kmlp.analysis.maps` has them.
        batch_size: images at a time.

    Returns:
        `{name: (N, h, w, C) float32}`, `"P2"` or the layer's name, in order.

    Raises:
        InputError: a model without maps, no such layer, or images that do not fit.

    Reference: ConvMLP (Li et al., 2021), Fig. 4.
    """
    images = checked_images(images)
    if layers is None:
        wanted = _stages(model, images.shape[1:])
    else:
        wanted = [find_map(model, layer) for layer in layers]

    def taps(batch):
        seen = dict.fromkeys(id(one.tensor) for one in wanted)
        run_graph(model, batch, seen=seen)
        return [seen[id(one.tensor)] for one in wanted]

    run = evaluated(taps, model.variables)
    parts = [
        run(images[start : start + batch_size])
        for start in range(0, len(images), batch_size)
    ]
    return {one.name: np.concatenate(m) for one, *m in zip(wanted, *parts)}


def varied_channels(maps, count):
    """Channels of maps that differ most from place to place, and from each other.

    The first is the one with the largest variance over the positions, in the mean over
    the images; each further one has the largest variance that is left when what the
    earlier ones show is taken off (a QR decomposition with pivoting). Of equal ones
    it is the first; which they are depends on the maps alone.

    Args:
        maps: `(N, h, w, C)`.
        count: how many; fewer where there are fewer channels.

    Returns:
        Their numbers, `(count,)`.
    """
    maps = np.asarray(maps, "float64")
    maps = maps - maps.mean((1, 2), keepdims=True)
    rows = maps.reshape(-1, maps.shape[-1])
    products = rows.T @ rows
    chosen = []
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
    """Height and width of each map where images are of a shape."""
    if all(None not in one.tensor.shape[1:3] for one in maps):
        return [tuple(one.tensor.shape[1:3]) for one in maps]
    seen = {id(one.tensor): None for one in maps}
    _spread(model, keras.KerasTensor((None, *shape)), seen)
    return [tuple(seen[id(one.tensor)].shape[1:3]) for one in maps]


def _spread(model, inputs, seen):
    """Goes through a graph with shapes alone."""
    graph = graph_of(model)
    values = {id(graph.inputs[0]): inputs}
    for node in calls_of(graph):
        layer = node.operation
        args, kwargs = node.arguments.fill_in(values)
        if graph_of(layer) is not None:
            found = _spread(layer, args[0], seen)
        else:
            found = layer.compute_output_spec(*args, **kwargs)
        for tensor, value in zip(node.outputs, keras.tree.flatten(found)):
            values[id(tensor)] = value
            if id(tensor) in seen:
                seen[id(tensor)] = value
    return [values[id(tensor)] for tensor in graph.outputs]
