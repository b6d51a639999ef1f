"""The interface of every data set of objects or class maps."""

import colorsys
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

# The number in a class map of what belongs to no class.
VOID = 255


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects to find in an image.

    Attributes:
        boxes: Boxes `(K, 4)`, float32, x1, y1, x2, y2 in pixels of the image.
        classes: Classes `(K,)`, int32.
        size: Height and width of the image.
        draw: Function of k to the visible part of object k, `(H, W)`, true or 1
            inside; to `None` where it has no mask.
    """

    boxes: np.ndarray
    classes: np.ndarray
    size: tuple[int, int]
    draw: Callable[[int], np.ndarray]

    def __len__(self):
        return len(self.classes)

    def masks(self) -> np.ndarray:
        """Return the visible parts of all objects, `(K, H, W)` bool.

        Those of an object without a mask are empty.
        """
        nothing = np.zeros(self.size, bool)
        drawn = [self.draw(index) for index in range(len(self))]
        drawn = [nothing if mask is None else mask for mask in drawn]
        return np.array(drawn, bool).reshape(len(self), *self.size)


class DenseSplit:
    """Pictures of training or validation, and what is to be seen in them.

    Everything is a function of the index alone and may be asked by many threads.

    Attributes:
        name: Name of the data set and the split.
        count: Number of pictures.
        size: Height and width if all pictures are known to share them, or `None`.
        in_memory: Whether pictures are at hand without a file.
        on_corrupt: What to do where a picture cannot be read, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.
        masks: Whether some object that is learned from has a mask.
    """

    name = ""
    count: Any = 0
    size: Any = None
    in_memory = False
    on_corrupt = "stop"
    upright = False
    masks = True

    def image(self, index: int) -> np.ndarray:
        """Return a picture, `(H, W, 3)` uint8.

        Raises:
            Unreadable: If the file is damaged.
            OSError: If it is gone.
        """
        raise NotImplementedError

    def annotation(self, index: int) -> Any:
        """Return `Objects` of a detection data set, a map `(H, W)` uint8 of the other.

        Raises:
            Unreadable: If the annotation is damaged or not of the image's size.
            OSError: If it is gone.
        """
        raise NotImplementedError

    def image_size(self, index: int) -> tuple[int, int]:
        """Return height and width, without decoding the picture."""
        return self.size

    def place(self, index: int) -> str:
        """Return where a picture lies, for people."""
        raise NotImplementedError

    def image_id(self, index: int) -> Any:
        """Return the picture's name or number in COCO's files of results."""
        return index + 1

    def truth(self, index: int) -> list[dict[str, Any]]:
        """Return a picture's objects as COCO's annotations, without their ids."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DenseSource:
    """A data set of two splits.

    Attributes:
        name: Name for the person and the report.
        task: Task, `"detection"` or `"segmentation"`.
        class_names: Names in the order of the class numbers.
        train: Pictures of training.
        validation: Pictures of validation.
        palette: Colours `(classes, 3)`, uint8, a colour for each class.
        category_ids: Numbers by which COCO's files of results call the classes of
            detection.
        notes: Lines on what was left out.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    train: DenseSplit
    validation: DenseSplit
    palette: np.ndarray
    category_ids: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Return name, numbers of pictures and of classes."""
        return (
            f"{self.name}: {self.train.count:,} pictures to train, "
            f"{self.validation.count:,} to validate, {len(self.class_names):,} classes"
        )


# Okabe and Ito: told apart by people with any kind of colour vision.
DISTINCT = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
BACKGROUND = (40, 40, 40)
# The angle between neighbours' hues; no two of many classes come close.
_TURN = 0.61803398875
_LEVELS = ((0.55, 1.0), (0.85, 0.95), (0.7, 0.75))


def palette(count: int, background: bool = False) -> np.ndarray:
    """Return colours `(count, 3)` uint8: Okabe and Ito's, then as many as it takes.

    Args:
        count: Number of classes.
        background: Whether class 0 is what surrounds the others.
    """
    colours: list[Any] = [BACKGROUND] * background + list(DISTINCT)
    for number in range(max(0, count - len(colours))):
        saturation, value = _LEVELS[number % len(_LEVELS)]
        hue = number * _TURN % 1
        red_green_blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colours.append(tuple(round(255 * part) for part in red_green_blue))
    return np.array(colours[:count], "uint8").reshape(-1, 3)
