"""The classes of pictures' pixels."""

import dataclasses

import numpy as np
from PIL import Image

from kmlp.data.dense.geometry import alone
from kmlp.data.dense.source import palette
from kmlp.errors import InputError, RunError
from kmlp.predicting.detecting import read
from kmlp.predicting.drawing import draw_classes
from kmlp.segmentation.inference import segment

# Rows of a picture whose scores are held at its own size at a time.
_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Way:
    """How a picture is gone through, as `kmlp.segmentation.segment` takes it.

    Attributes:
        mode, window, stride, scales, flip: its arguments.
    """

    mode: str
    window: tuple | None = None
    stride: tuple | None = None
    scales: tuple = (1.0,)
    flip: bool = False


def way_of(network, *, mode=None, window=None, stride=None, scales=None, flip=False):
    """What was asked for, and else what the weights were validated with.

    Args:
        network: `DenseNetwork` of segmentation.
        mode, window, stride, scales, flip: as in `segment`; `None`: not asked for.
            Windows are the canvas where nothing says another size.

    Raises:
        InputError: windows without `"slide"`, or of another size than the network's.
    """
    known = network.preprocessing
    mode = mode or ("slide" if window or stride else known.mode)
    if mode == "whole":
        if window or stride:
            raise InputError(
                "Windows and their stride go with --mode slide. Received: --mode whole"
            )
        return Way(mode, scales=scales or (1.0,), flip=bool(flip))
    fixed = tuple(network.input_shape[1:3])
    if None not in fixed:
        if window not in (None, fixed):
            raise InputError(
                f"This network takes {fixed[0]}x{fixed[1]}: leave --window out, or "
                "pass the .keras checkpoint of a family that takes any size. "
                f"Received: --window {window[0]}x{window[1]}"
            )
        window = fixed
    stride = stride or (known.stride if window in (None, known.window) else None)
    window = window or known.window or known.canvas
    return Way(mode, tuple(window), stride, scales or (1.0,), bool(flip))


@dataclasses.dataclass(frozen=True)
class Segmented:
    """What a picture shows.

    Attributes:
        image: its path.
        picture: `(H, W, 3)` uint8; `None` where it cannot be read.
        classes: `(H, W)` class numbers.
    """

    image: str
    picture: np.ndarray | None
    classes: np.ndarray | None = None


def segment_files(network, images, way):
    """Segments image files.

    Args:
        network: `DenseNetwork` of segmentation.
        images: paths.
        way: `Way`.

    Yields:
        A `Segmented` per image, in order.
    """
    for path in images:
        picture = read(path)
        if picture is None:
            yield Segmented(path, None)
        else:
            yield Segmented(path, picture, classes_of(network, picture, way))


def classes_of(network, picture, way):
    """The class of every pixel of a picture, at its own size.

    Args:
        network: `DenseNetwork` of segmentation.
        picture: `(H, W, 3)` uint8.
        way: `Way`.

    Returns:
        `(H, W)` integers.

    Raises:
        InputError: scores that are not finite.
    """
    image = alone(picture, network.preprocessing)
    scores = segment(network, image, **dataclasses.asdict(way))
    if not np.isfinite(scores).all():
        raise RunError(
            "The weights give scores that are not finite: they are damaged, or trained "
            f"to divergence. Received: {str(network.path)!r}",
        )
    return likeliest_at(scores, picture.shape[:2])


def likeliest_at(scores, size):
    """The likeliest class of every pixel of scores that are brought to a size.

    Bilinear with half-pixel centres, a few rows at a time: scores of many classes at a
    photograph's size would take gigabytes.

    Args:
        scores: `(h, w, K)` float32.
        size: height and width.

    Returns:
        `(H, W)` uint8, or int32 of more than 256 classes.
    """
    small = np.uint8 if scores.shape[-1] <= 256 else np.int32
    if scores.shape[:2] == tuple(size):
        return scores.argmax(-1).astype(small)
    found = np.empty(size, small)
    top, bottom, down = _neighbours(scores.shape[0], size[0])
    left, right, along = _neighbours(scores.shape[1], size[1])
    down, along = down[:, None, None], along[None, :, None]
    for start in range(0, size[0], _ROWS):
        part = slice(start, start + _ROWS)
        rows = scores[top[part]] * (1 - down[part]) + scores[bottom[part]] * down[part]
        rows = rows[:, left] * (1 - along) + rows[:, right] * along
        found[part] = rows.argmax(-1)
    return found


def _neighbours(length, size):
    """For each of `size` places the two that it lies between, and how far."""
    places = (np.arange(size) + 0.5) * (length / size) - 0.5
    places = np.clip(places, 0, length - 1)
    first = np.floor(places).astype(int)
    second = np.minimum(first + 1, length - 1)
    return first, second, (places - first).astype("float32")


def shares(classes, names):
    """`{name: share of the pixels}`, the largest first, those that occur."""
    counts = np.bincount(classes.ravel(), minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return {names[k]: counts[k] / classes.size for k in order if counts[k]}


def in_words(segmented, names):
    found = shares(segmented.classes, names).items()
    return ", ".join(f"{name} {share:.1%}" for name, share in found)


def overlay(segmented, names):
    """The classes over their picture, as a `PIL.Image`."""
    return draw_classes(segmented.picture, segmented.classes, names)


def class_map(segmented, names):
    """A `PIL.Image` whose pixels are class numbers, in the classes' colours."""
    image = Image.fromarray(segmented.classes.astype("uint8"), mode="P")
    colours = np.zeros((256, 3), "uint8")
    known = palette(len(names), names[0] == "background")
    colours[: len(known)] = known
    image.putpalette(colours.tobytes())
    return image
