"""Pictures as detectors and segmenters train on them.

A segmenter's target is the class map. A detector's is a dict: `boxes` `(M, 4)` float32
in pixels of the input, `classes` `(M,)` int32, -1 where there is no object, and for a
mask head `masks` `(M, S, S)` uint8, each over its own box, 255 throughout where the
object has none. M is the recipe's
`max_objects`, S its `mask_size`. In evaluation it also has `index`, the picture's in
its split, `size`, its height and width, and `shape`, those it has on the canvas: what
places results in the picture.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from kmlp.data.dense import geometry
from kmlp.data.dense.source import VOID, DenseSplit

# The heads that learn masks.
MASKED = ("mask_rcnn", "cascade_mask_rcnn")
# Redraws of a crop in which one class takes too much.
ATTEMPTS = 10
# Bounds of random brightness, contrast, saturation and hue, the last of 180: OpenCV
# counts hues by two degrees.
BRIGHTNESS = 32
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = 18
_HUES = 180

Example = tuple[np.ndarray, ...]
# Shapes and types of an example's parts; `None` where pictures differ.
Spec = list[tuple[tuple[int | None, ...], str]]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Pictures of a split, prepared by a recipe: a class for each task.

    `training` gives a picture and its targets, changed at random, `evaluation` a whole
    one and where it comes from; `training_spec` and `evaluation_spec` say their shapes
    and types. `named` makes of what follows the image what a model takes.

    Attributes:
        split: Pictures and what is to be seen in them.
        recipe: A `DenseRecipe`.
    """

    split: DenseSplit
    recipe: Any


class DetectionExamples(Examples):
    """Pictures and their objects."""

    @property
    def masked(self) -> bool:
        """Return whether the head learns masks."""
        return self.recipe.head in MASKED

    def training(self, index: int, generator: np.random.Generator) -> Example:
        """Return a picture at a random size, perhaps mirrored, and its objects."""
        recipe, short = self.recipe, None
        if recipe.short_sides is not None:
            low, high = recipe.short_sides
            short = int(generator.integers(low, high + 1))
        flip = bool(generator.random() < recipe.flip)
        return self._example(index, short, flip)[0]

    def evaluation(self, index: int) -> Example:
        """Return a picture at its largest size, its objects, and where it is from."""
        sides = self.recipe.short_sides
        example, *sizes = self._example(index, None if sides is None else sides[1])
        return (*example, np.int32(index), *(np.array(s, "int32") for s in sizes))

    def training_spec(self) -> Spec:
        count, side = self.recipe.max_objects, self.recipe.mask_size
        image = ((*self.recipe.image_size, 3), "float32")
        boxes, classes = ((count, 4), "float32"), ((count,), "int32")
        return [image, boxes, classes] + [((count, side, side), "uint8")] * self.masked

    def evaluation_spec(self) -> Spec:
        return [*self.training_spec(), ((), "int32"), ((2,), "int32"), ((2,), "int32")]

    def named(self, targets: Sequence[Any]) -> dict[str, Any]:
        masks = ("masks",) * self.masked
        names = ("boxes", "classes", *masks, "index", "size", "shape")
        return dict(zip(names, targets))

    def _example(self, index, short, flip=False):
        """Return an example, the picture's own size, and its size on the canvas."""
        recipe = self.recipe
        image, objects = self.split.image(index), self.split.annotation(index)
        size = image.shape[:2]
        target = geometry.fitted(size, recipe.image_size, short, recipe.long_side)
        image = geometry.resized(image, target)
        targets = self._targets(objects, image.shape[:2], flip)
        mean, std = recipe.mean, recipe.std
        canvas = geometry.on_canvas(image, recipe.image_size, mean, std, flip)
        return (canvas, *targets), size, image.shape[:2]

    def _targets(self, objects, shape, flip):
        recipe = self.recipe
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
        if not self.masked:
            return boxes, classes
        masks = np.zeros((count, recipe.mask_size, recipe.mask_size), np.uint8)
        for place, k in enumerate(chosen):
            # Over their boxes masks are the same at any size of the picture.
            drawn, box = objects.draw(k), objects.boxes[k]
            if drawn is None:
                masks[place] = VOID
                continue
            mask = geometry.mask_in_box(drawn, box, recipe.mask_size)
            masks[place] = mask[:, ::-1] if flip else mask
        return boxes, classes, masks


class SegmentationExamples(Examples):
    """Pictures and their class maps."""

    def training(self, index: int, generator: np.random.Generator) -> Example:
        """Return a random part at a random scale: `(image, map)`.

        Reference:
            The reference frameworks' Resize, RandomCrop, RandomFlip,
            PhotoMetricDistortion, Normalize and Pad.
        """
        recipe = self.recipe
        image, classes = self.split.image(index), self.split.annotation(index)
        size = image.shape[:2]
        ratio = generator.uniform(*recipe.scale_range)
        full = scaled(size, recipe.resize_to, ratio)
        part = [min(side, crop) for side, crop in zip(full, recipe.image_size)]
        for _ in range(1 + ATTEMPTS):
            corner = [int(generator.integers(s - p + 1)) for s, p in zip(full, part)]
            target = _part_of_map(classes, full, corner, part)
            if _is_varied(target, recipe.max_class_share):
                break
        # A part of the resized picture, from no more of it than it takes.
        ends = [c + p for c, p in zip(corner, part)]
        factors = [side / new for side, new in zip(size, full)]
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

    def evaluation(self, index: int) -> Example:
        """Return the whole picture and its map."""
        recipe = self.recipe
        image, classes = self.split.image(index), self.split.annotation(index)
        size = scaled(image.shape[:2], recipe.resize_to, 1.0)
        image = geometry.resized(image, size)
        return geometry.on_canvas(image, size, recipe.mean, recipe.std), classes

    def training_spec(self) -> Spec:
        size = tuple(self.recipe.image_size)
        return [((*size, 3), "float32"), (size, "uint8")]

    def evaluation_spec(self) -> Spec:
        unknown: tuple[int | None, ...] = (None, None)
        size, shape = self.split.size, unknown
        if size is not None:
            shape = scaled(size, self.recipe.resize_to, 1.0)
        return [((*shape, 3), "float32"), (size or unknown, "uint8")]

    def named(self, targets: Sequence[Any]) -> Any:
        return targets[0]


def scaled(
    size: tuple[int, int], longest: tuple[int, int] | None, ratio: float
) -> tuple[int, int]:
    """Return the size of a picture at a scale.

    Args:
        size: Height and width.
        longest: Long and short side within which it is put at scale 1; `None`: its own.
        ratio: Scale.
    """
    limits = sorted(size) if longest is None else sorted(longest)
    short, long = (max(1, int(side * ratio)) for side in limits)
    return geometry.fitted(size, None, short, long)


def _part_of_map(classes, scaled, corner, part):
    """Resize a part of the map without the rest, taking the nearest pixels."""
    rows, columns = (
        ((np.arange(first, first + count) + 0.5) * (side / new)).astype(int)
        for first, count, side, new in zip(corner, part, classes.shape, scaled)
    )
    return classes[rows[:, None], columns]


def _is_varied(classes, most):
    """Return whether no class takes the share `most` of what is not void."""
    if most >= 1:
        return True
    counts = np.bincount(classes.ravel(), minlength=VOID + 1)[:VOID]
    return np.count_nonzero(counts) > 1 and counts.max() < most * counts.sum()


def distorted(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a picture in other light: each change with a chance of one half.

    Contrast comes first or last, by chance too.

    Args:
        image: Image `(H, W, 3)`, uint8.
        generator: Source of the draws.

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
    """Draw a number between two bounds, or 1, with even chances."""
    value = generator.uniform(*bounds)
    return value if generator.integers(2) else 1.0


def _levels(factor=1.0, shift=0.0):
    """Return what becomes of the 256 levels of a channel."""
    levels = np.arange(256) * factor + shift
    return np.clip(levels, 0, 255).astype(np.uint8)


def _table(*channels):
    return np.concatenate(channels).tolist()
