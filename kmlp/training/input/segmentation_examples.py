"""Random brightness, contrast, saturation and hue, as the reference framework's."""

import numpy as np
from PIL import Image

from kmlp.data.dense import geometry
from kmlp.data.dense.source import VOID

BRIGHTNESS = 32
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
# Of 180: OpenCV counts hues by two degrees.
HUE = 18
_HUES = 180


def distorted(image, generator):
    """A picture in other light: each change with a chance of one half.

    Contrast comes first or last, by chance too.

    Args:
        image: `(H, W, 3)` uint8.
        generator: `numpy.random.Generator`.

    Reference:
        mmsegmentation, `PhotoMetricDistortion`.
    """
    shift = generator.uniform(-BRIGHTNESS, BRIGHTNESS) * generator.integers(2)
    early = bool(generator.integers(2))
    contrast = _factor(generator, CONTRAST)
    saturation = _factor(generator, SATURATION)
    hue = int(generator.integers(-HUE, HUE)) * int(generator.integers(2))
    levels = _levels(shift=shift)
    if early:
        levels = _levels(contrast)[levels]
    picture = Image.fromarray(image).point(_table(levels, levels, levels))
    if saturation != 1 or hue:
        same = np.arange(256)
        turned = (same + round(hue * 256 / _HUES)) % 256
        picture = picture.convert("HSV")
        picture = picture.point(_table(turned, _levels(saturation), same))
        picture = picture.convert("RGB")
    if not early and contrast != 1:
        levels = _levels(contrast)
        picture = picture.point(_table(levels, levels, levels))
    return np.asarray(picture)


def _factor(generator, bounds):
    """A number between two, or 1, with even chances."""
    value = generator.uniform(*bounds)
    return value if generator.integers(2) else 1.0


def _levels(factor=1.0, shift=0.0):
    """What becomes of the 256 levels of a channel."""
    levels = np.arange(256) * factor + shift
    return np.clip(levels, 0, 255).astype(np.uint8)


def _table(*channels):
    return np.concatenate(channels).tolist()


# How often a crop is drawn again in which one class takes too much.
ATTEMPTS = 10


def training_example(split, index, recipe, generator):
    """A random part at a random scale: `(image, map)`.

    Reference:
        The reference frameworks' Resize, RandomCrop, RandomFlip,
        PhotoMetricDistortion, Normalize and Pad.
    """
    image, classes = split.image(index), split.annotation(index)
    size = image.shape[:2]
    scaled = _scaled(size, recipe.resize_to, generator.uniform(*recipe.scale_range))
    part = [min(side, crop) for side, crop in zip(scaled, recipe.image_size)]
    for _ in range(1 + ATTEMPTS):
        corner = [int(generator.integers(s - p + 1)) for s, p in zip(scaled, part)]
        target = _part_of_map(classes, scaled, corner, part)
        if _is_varied(target, recipe.max_class_share):
            break
    # A part of the resized picture, from no more of it than it takes.
    ends = [c + p for c, p in zip(corner, part)]
    factors = [side / new for side, new in zip(size, scaled)]
    box = (
        corner[1] * factors[1],
        corner[0] * factors[0],
        min(ends[1] * factors[1], size[1]),
        min(ends[0] * factors[0], size[0]),
    )
    image = geometry.resized(image, tuple(part), None if part == [*size] else box)
    flip = bool(generator.random() < recipe.flip)
    if recipe.photometric:
        image = distorted(image, generator)
    whole = np.full(recipe.image_size, VOID, np.uint8)
    whole[: part[0], : part[1]] = target[:, ::-1] if flip else target
    mean, std = recipe.mean, recipe.std
    return geometry.on_canvas(image, recipe.image_size, mean, std, flip), whole


def evaluation_example(split, index, recipe):
    """The whole picture and its map."""
    image, classes = split.image(index), split.annotation(index)
    size = _scaled(image.shape[:2], recipe.resize_to, 1.0)
    image = geometry.resized(image, size)
    return geometry.on_canvas(image, size, recipe.mean, recipe.std), classes


def training_spec(recipe):
    """Shapes and types of an example's parts."""
    return [((*recipe.image_size, 3), "float32"), (tuple(recipe.image_size), "uint8")]


def evaluation_spec(split, recipe):
    """The same in evaluation; `None` where pictures differ."""
    size = split.size or (None, None)
    shape = size if size[0] is None else _scaled(size, recipe.resize_to, 1.0)
    return [((*shape, 3), "float32"), (size, "uint8")]


def named(targets, recipe):
    """The map that follows the image in an example."""
    return targets[0]


named_evaluation = named


def _scaled(size, longest, ratio):
    """The size of a picture at a scale.

    Args:
        size: height and width.
        longest: long and short side within which it is put at scale 1; `None`: its own.
        ratio: the scale.
    """
    limits = sorted(size) if longest is None else sorted(longest)
    short, long = (max(1, int(side * ratio)) for side in limits)
    return geometry.fitted(size, None, short, long)


def _part_of_map(classes, scaled, corner, part):
    """A part of the resized map, without resizing the rest: the nearest pixels."""
    rows, columns = (
        ((np.arange(first, first + count) + 0.5) * (side / new)).astype(int)
        for first, count, side, new in zip(corner, part, classes.shape, scaled)
    )
    return classes[rows[:, None], columns]


def _is_varied(classes, most):
    """Whether no class takes the share `most` of what is not void."""
    if most >= 1:
        return True
    counts = np.bincount(classes.ravel(), minlength=VOID + 1)[:VOID]
    return np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum()
