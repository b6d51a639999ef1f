"""Scenes of a few shapes on textured noise, each drawn from random numbers."""

import math
from typing import Any

import numpy as np
from PIL import Image

from kmlp.data.dense.results import encoded
from kmlp.data.dense.source import DenseSource, DenseSplit, Objects, palette
from kmlp.errors import InputError

SHAPES = ("circle", "square", "triangle")
_SIDES = {"square": 4, "triangle": 3}
LARGEST_NUMBER = 4
# Radius of the circle of the same area, as a share of the picture's side.
RADII = (0.095, 0.27)
# An object of which less can be seen is not drawn, nor one that hides as much of one.
LEAST_VISIBLE = 0.6
# Distance of two colours, of at most 442.
CONTRAST = 110
# The lean of shapes to either side, in radians.
LEAN = math.pi / 8
_ATTEMPTS = 6


def draw(
    generator: np.random.Generator, size: int = 96
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a scene.

    Args:
        generator: Source of random numbers, on which alone the scene depends.
        size: Height and width.

    Returns:
        Tuple `(image, owners, classes)`: `(size, size, 3)` uint8; `(size, size)` uint8,
        0 for the background and k + 1 where object k is seen; `(K,)` int32, numbers in
        `SHAPES`, K from 1 to 4.
    """
    colours = [generator.uniform(30, 225, 3)]
    canvas = _background(generator, size, colours[0])
    owners = np.zeros((size, size), np.uint8)
    areas: list[float] = []
    classes: list[int] = []
    for _ in range(generator.integers(1, LARGEST_NUMBER + 1)):
        for _ in range(_ATTEMPTS):
            shape = int(generator.integers(len(SHAPES)))
            radius = size * generator.uniform(*RADII)
            depth = _depth(generator, size, SHAPES[shape], radius)
            after = np.where(depth > 0, np.uint8(len(areas) + 1), owners)
            visible = np.bincount(after.ravel(), minlength=len(areas) + 2)[1:]
            if np.all(visible >= LEAST_VISIBLE * np.array([*areas, np.pi * radius**2])):
                break
        else:
            continue
        colours.append(_colour(generator, colours))
        _paint(canvas, depth, colours[-1], generator)
        owners = after
        areas.append(np.pi * radius**2)
        classes.append(shape)
    grain = generator.standard_normal((size, size, 3), np.float32)
    canvas += generator.uniform(4, 14) * grain
    return np.clip(canvas, 0, 255).astype(np.uint8), owners, np.array(classes, np.int32)


def _background(generator, size, colour):
    """Return coarse noise, made smooth, around a colour."""
    cells = int(generator.integers(3, 14))
    noise = generator.integers(0, 256, (cells, cells, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)
    strength = generator.uniform(0.1, 0.35)
    return (colour + strength * (np.asarray(smooth, np.float32) - 128)).astype("f4")


def _depth(generator, size, shape, radius):
    """Return how far inside a shape the pixels' centres are; negative outside."""
    x, y = generator.uniform(0.6 * radius, size - 0.6 * radius, 2)
    # A side lies below.
    turn = math.pi / 2 + generator.uniform(-LEAN, LEAN)
    columns = np.arange(size, dtype=np.float32)[None] + 0.5 - x
    rows = np.arange(size, dtype=np.float32)[:, None] + 0.5 - y
    if shape == "circle":
        return radius - np.sqrt(columns**2 + rows**2)
    sides = _SIDES[shape]
    # A regular polygon of n sides and inner radius a has the area n a² tan(pi / n).
    inner = radius * math.sqrt(math.pi / (sides * math.tan(math.pi / sides)))
    angles = [turn + 2 * math.pi * side / sides for side in range(sides)]
    reach = [math.cos(a) * columns + math.sin(a) * rows for a in angles]
    return inner - np.maximum.reduce(reach)


def _colour(generator, others):
    """Return a colour unlike the others, or the last that was tried."""
    for _ in range(_ATTEMPTS):
        colour = generator.uniform(0, 255, 3)
        if min(np.sqrt(np.sum((colour - other) ** 2)) for other in others) > CONTRAST:
            break
    return colour


def _paint(canvas, depth, colour, generator):
    """Lay a shape over the canvas, shaded across, with soft edges."""
    size = len(canvas)
    steps = np.linspace(-1, 1, size, dtype=np.float32)
    slopes = generator.uniform(-25, 25, 2).astype("f4")
    shade = slopes[0] * steps[None] + slopes[1] * steps[:, None]
    covered = np.clip(depth + 0.5, 0, 1).astype(np.float32)[..., None]
    canvas += covered * (colour.astype("f4") + shade[..., None] - canvas)


NAME = "scenes"
SIZE = 96
TRAIN, VALIDATION = 2048, 256


def scenes(
    task: str,
    *,
    train: int = TRAIN,
    validation: int = VALIDATION,
    size: int = SIZE,
    seed: int = 0,
) -> DenseSource:
    """Return circles, squares and triangles on textured noise, one to four to a scene.

    Later objects hide earlier ones. Boxes and masks are of what is seen.

    Args:
        task: Task, `"detection"`, of three classes, or `"segmentation"`, where class 0
            is the background.
        train, validation: Numbers of scenes.
        size: Height and width.
        seed: Integer; each scene is a function of it and of its own number.

    Raises:
        InputError: If there would be no scenes.
    """
    if min(train, validation) < 1:
        raise InputError(
            "There must be scenes to train on and to validate on. "
            f"Received: {train} and {validation}"
        )
    background = task == "segmentation"
    names = ("background",) * background + SHAPES
    return DenseSource(
        name=NAME,
        task=task,
        class_names=names,
        train=SceneSplit(f"{NAME} train", task, train, size, (seed, 0)),
        validation=SceneSplit(f"{NAME} val", task, validation, size, (seed, 1)),
        palette=palette(len(names), background),
        category_ids=() if background else tuple(range(1, len(names) + 1)),
    )


class SceneSplit(DenseSplit):
    """Scenes, drawn when first asked for, then kept.

    Args:
        name: Name for people.
        task: Task, `"detection"` or `"segmentation"`.
        count: Number of scenes.
        size: Height and width.
        seed: Integers that no other split has.
    """

    in_memory = True

    def __init__(
        self, name: str, task: str, count: int, size: int, seed: tuple[int, ...]
    ):
        self.name, self.task, self.count = name, task, count
        self.size = (size, size)
        self._seed = seed
        self._drawn: list[Any] = [None] * count

    def image(self, index: int) -> np.ndarray:
        return self._scene(index)[0]

    def annotation(self, index: int) -> Any:
        _, owners, classes = self._scene(index)
        if self.task == "segmentation":
            return np.concatenate([[0], classes + 1]).astype("uint8")[owners]
        boxes = [_box(owners == k + 1) for k in range(len(classes))]
        return Objects(
            boxes=np.array(boxes, "float32"),
            classes=classes,
            size=self.size,
            draw=lambda k: owners == k + 1,
        )

    def place(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def truth(self, index: int) -> list[dict[str, Any]]:
        objects = self.annotation(index)
        return [
            {
                "category_id": int(label) + 1,
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": encoded(mask),
            }
            for label, mask, (x1, y1, x2, y2) in zip(
                objects.classes, objects.masks(), objects.boxes
            )
        ]

    def _scene(self, index):
        # Two threads may draw the same scene, to the same end.
        if self._drawn[index] is None:
            generator = np.random.default_rng((*self._seed, index))
            self._drawn[index] = draw(generator, self.size[0])
        return self._drawn[index]


def _box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
