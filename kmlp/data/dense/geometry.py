"""Pictures of any size and shape on the canvas that a network sees."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

Size = tuple[int, int]


def fitted(
    size: Size, canvas: Size | None, short: int | None = None, long: int | None = None
) -> tuple[int, int]:
    """Return the size that a picture gets, its proportions kept.

    Its shorter side becomes `short` unless the longer would then pass `long`. The
    reference frameworks pad a batch to its largest picture; here the canvas is always
    the same, and what would not fit, as upright pictures on an oblong canvas, is made
    smaller until it does.

    Args:
        size: Height and width of the picture.
        canvas: Height and width; `None`: none.
        short, long: Sides in pixels; `None`: the picture keeps its size where it fits.

    Returns:
        Height and width, rounded as the reference frameworks round.
    """
    height, width = size
    scale = 1.0
    if short is not None:
        scale = short / min(size)
        if long is not None:
            scale = min(scale, long / max(size))
    if canvas is not None:
        scale = min(scale, canvas[0] / height, canvas[1] / width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resized(image: np.ndarray, size: Size, box: Any = None) -> np.ndarray:
    """Resize a picture, or a part of it, bilinear and antialiased.

    Args:
        image: Image `(H, W, 3)`, uint8.
        size: Height and width.
        box: Left, top, right, bottom of the part, in pixels; `None`: the whole.
    """
    if box is None and image.shape[:2] == tuple(size):
        return image
    picture = Image.fromarray(image)
    scaled = picture.resize(size[::-1], Image.Resampling.BILINEAR, box=box)
    return np.asarray(scaled)


def on_canvas(
    image: np.ndarray,
    canvas: Size,
    mean: Sequence[float],
    std: Sequence[float],
    flip: bool = False,
) -> np.ndarray:
    """Lay a normalised picture at the top left of a canvas of zeros.

    Args:
        image: Image `(h, w, 3)`, uint8, no larger than the canvas.
        canvas: Height and width.
        mean, std: Statistics per channel, of images in 0…1.
        flip: Whether it is mirrored.

    Returns:
        Canvas `(H, W, 3)`, float32.
    """
    height, width = image.shape[:2]
    if flip:
        image = image[:, ::-1]
    shift, factor = _rows(tuple(mean), tuple(std), width)
    rows = np.reshape(image, (height, 3 * width)) * factor
    rows -= shift
    if (height, width) == tuple(canvas):
        return rows.reshape(height, width, 3)
    whole = np.zeros((*canvas, 3), np.float32)
    whole[:height, :width] = rows.reshape(height, width, 3)
    return whole


def boxes_of(objects: Any, size: Size, flip: bool = False) -> np.ndarray:
    """Return the boxes of objects in their picture at another size, perhaps mirrored.

    Args:
        objects: Objects of the picture, `Objects`.
        size: Height and width that the picture gets.
        flip: Whether it is mirrored.

    Returns:
        Boxes `(K, 4)`, float32.
    """
    scale = np.array(size[::-1], float) / objects.size[::-1]
    boxes = objects.boxes * np.tile(scale, 2).astype("float32")
    if flip:
        boxes[:, [0, 2]] = size[1] - boxes[:, [2, 0]]
    return boxes


def mask_in_box(mask: np.ndarray, box: Sequence[float], size: int) -> np.ndarray:
    """Return the part of a mask within a box, as a small square.

    Args:
        mask: Mask `(H, W)`, true or 1 inside.
        box: Corners x1, y1, x2, y2 in its pixels.
        size: Height and width of the result.

    Returns:
        Mask `(size, size)`, uint8, 1 where at least half is inside.
    """
    x1, y1, x2, y2 = map(float, box)
    # Resampling sees this much beyond the box, and the rest need not be copied.
    reach = math.ceil(max(x2 - x1, y2 - y1) / size) + 2
    left, top = max(0, math.floor(x1) - reach), max(0, math.floor(y1) - reach)
    around = mask[top : math.ceil(y2) + reach, left : math.ceil(x2) + reach]
    picture = Image.fromarray(np.asarray(around, np.uint8) * np.uint8(255))
    box = (x1 - left, y1 - top, x2 - left, y2 - top)
    small = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return (np.asarray(small) > 127).astype(np.uint8)


# A row of colours: broadcasting over a last axis of three is slow.
@functools.lru_cache(4096)
def _rows(mean, std, width):
    factor = (1 / (255 * np.array(std))).astype("float32")
    shift = (np.array(mean) / np.array(std)).astype("float32")
    return np.tile(shift, width), np.tile(factor, width)


def prepared(image: np.ndarray, known: Any) -> tuple[np.ndarray, tuple[int, int]]:
    """Lay a picture on a network's canvas.

    Args:
        image: Image `(H, W, 3)`, uint8.
        known: Preparation, a `kmlp.preprocessing.DensePreprocessing`.

    Returns:
        Picture `(H', W', 3)`, float32, and the height and width that the picture has
        there.
    """
    shape = fitted(image.shape[:2], known.canvas, *known.sides)
    image = resized(image, shape)
    return on_canvas(image, known.canvas, known.mean, known.std), shape


def alone(image: np.ndarray, known: Any) -> np.ndarray:
    """Prepare a picture without a canvas, at the size at which it is segmented.

    Args:
        image, known: Same as in `prepared`.

    Returns:
        Picture `(h, w, 3)`, float32.
    """
    shape = fitted(image.shape[:2], None, *known.sides)
    image = resized(image, shape)
    return on_canvas(image, shape, known.mean, known.std)
