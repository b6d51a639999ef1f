"""Pictures and their objects as a detector trains on them.

Targets, a dict: `boxes` `(M, 4)` float32 in pixels of the input, `classes` `(M,)`
int32, -1 where there is no object, and for detectors with a mask head `masks` `(M, S,
S)` uint8, each over its own box. M is the recipe's `max_objects`, S its `mask_size`.

In evaluation there are also `index`, the picture's in its split, `size`, its height and
width, and `shape`, those it has on the canvas: what places results in the picture.
"""

import numpy as np

from kmlp.data.dense import geometry

# The heads that learn masks.
MASKED = ("mask_rcnn", "cascade_mask_rcnn")


def training_example(split, index, recipe, generator):
    """A picture at a random size, perhaps mirrored: `(image, boxes, classes, …)`."""
    short = None
    if recipe.short_sides is not None:
        low, high = recipe.short_sides
        short = int(generator.integers(low, high + 1))
    flip = bool(generator.random() < recipe.flip)
    image, objects = split.image(index), split.annotation(index)
    image, _ = _resized(image, recipe, short)
    return (
        geometry.on_canvas(image, recipe.image_size, recipe.mean, recipe.std, flip),
        *_targets(objects, image.shape[:2], recipe, flip),
    )


def evaluation_example(split, index, recipe):
    """A picture at its largest size, and where it comes from."""
    image, objects = split.image(index), split.annotation(index)
    short = None if recipe.short_sides is None else recipe.short_sides[1]
    image, size = _resized(image, recipe, short)
    shape = image.shape[:2]
    return (
        geometry.on_canvas(image, recipe.image_size, recipe.mean, recipe.std),
        *_targets(objects, shape, recipe, False),
        np.int32(index),
        np.array(size, "int32"),
        np.array(shape, "int32"),
    )


def training_spec(recipe):
    """Shapes and types of an example's parts."""
    count, side = recipe.max_objects, recipe.mask_size
    spec = [
        ((*recipe.image_size, 3), "float32"),
        ((count, 4), "float32"),
        ((count,), "int32"),
    ]
    return spec + [((count, side, side), "uint8")] * _masked(recipe)


def evaluation_spec(split, recipe):
    """The same in evaluation."""
    return training_spec(recipe) + [((), "int32"), ((2,), "int32"), ((2,), "int32")]


def named(targets, recipe):
    """The dict of what follows the image in an example."""
    return dict(zip(_names(recipe), targets))


def named_evaluation(targets, recipe):
    """The same in evaluation."""
    return dict(zip((*_names(recipe), "index", "size", "shape"), targets))


def _names(recipe):
    return ("boxes", "classes", "masks") if _masked(recipe) else ("boxes", "classes")


def _masked(recipe):
    return recipe.head in MASKED


def _resized(image, recipe, short):
    """The picture as it comes onto the canvas, and the size it had."""
    size = image.shape[:2]
    target = geometry.fitted(size, recipe.image_size, short, recipe.long_side)
    return geometry.resized(image, target), size


def _targets(objects, shape, recipe, flip):
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    chosen = np.flatnonzero((sides >= recipe.min_box).all(1))
    count = recipe.max_objects
    if len(chosen) > count:  # the largest, in the order in which they stand
        largest = np.argsort(-sides[chosen].prod(1), kind="stable")[:count]
        chosen = chosen[np.sort(largest)]
    boxes = np.zeros((count, 4), np.float32)
    classes = np.full(count, -1, np.int32)
    boxes[: len(chosen)] = geometry.boxes_of(objects, shape, flip)[chosen]
    classes[: len(chosen)] = objects.classes[chosen]
    if not _masked(recipe):
        return boxes, classes
    masks = np.zeros((count, recipe.mask_size, recipe.mask_size), np.uint8)
    for place, k in enumerate(chosen):
        # Over their boxes masks are the same at any size of the picture.
        mask = geometry.mask_in_box(objects.draw(k), objects.boxes[k], recipe.mask_size)
        masks[place] = mask[:, ::-1] if flip else mask
    return boxes, classes, masks
