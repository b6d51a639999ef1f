"""Predictions of detectors and segmenters: objects, or the class of every pixel."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from PIL import Image

from kmlp.data.dense.geometry import alone, prepared
from kmlp.data.dense.results import coco_entries, paste, to_picture
from kmlp.data.dense.source import palette as default_palette
from kmlp.data.pictures import Unreadable, read_image
from kmlp.data.scoring import check_finite
from kmlp.errors import InputError
from kmlp.layers.feature_pyramid import resize_bilinear
from kmlp.predicting.dense_network import DenseNetwork
from kmlp.predicting.drawing import draw_classes, draw_detections
from kmlp.segmentation.inference import segment
from kmlp.typing import PathLike


def read(path: PathLike, upright: bool = False) -> np.ndarray | None:
    """Return a picture `(H, W, 3)` uint8, `None` where there is no such picture.

    Args:
        path: Path of the file.
        upright: Whether a JPEG is turned as its EXIF states.
    """
    try:
        return read_image(path, upright)
    except (OSError, Unreadable):
        return None


def _reader(known):
    return functools.partial(read, upright=known.exif == "apply")


@dataclasses.dataclass(frozen=True)
class Detected:
    """The objects in a picture.

    Attributes:
        image: Path, or whatever stands for it.
        picture: Picture `(H, W, 3)`, uint8; `None` where it cannot be read.
        objects: Objects in its own pixels, from `kmlp.data.dense.results.to_picture`.
    """

    image: Any
    picture: np.ndarray | None
    objects: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def in_words(self, names: Sequence[str], score: float) -> str:
        """Return objects by class, the surest class first, each with its score."""
        scores, classes = self.objects["scores"], self.objects["classes"]
        by_class: dict[int, list[str]] = {}
        for k in np.argsort(-scores, kind="stable"):
            if scores[k] >= score:
                by_class.setdefault(int(classes[k]), []).append(f"{scores[k]:.2f}")
        parts = (f"{len(s)} {names[c]} {' '.join(s)}" for c, s in by_class.items())
        return ", ".join(parts) or "nothing"

    def overlay(
        self, names: Sequence[str], score: float, palette: np.ndarray | None = None
    ) -> Image.Image:
        """Return the objects of at least a score over their picture.

        Args:
            names: Class names.
            score: Lowest score that is drawn.
            palette: Colours `(classes, 3)`, uint8; `None`: ours.
        """
        assert self.picture is not None
        shown = np.flatnonzero(self.objects["scores"] >= score)
        objects = {name: part[shown] for name, part in self.objects.items()}
        if "masks" in objects:
            size = self.picture.shape[:2]
            pairs = zip(objects["masks"], objects["whole_boxes"])
            masks = [paste(mask, box, size) for mask, box in pairs]
            objects["masks"] = np.array(masks, bool).reshape(-1, *size)
        return draw_detections(self.picture, objects, names, palette=palette)

    def entries(self, image_id: int, category_ids: Sequence[int]) -> list[dict]:
        """Return all objects as entries of COCO's files of results.

        Args:
            image_id: Number of the picture.
            category_ids: Numbers of the classes.
        """
        assert self.picture is not None
        size = self.picture.shape[:2]
        return coco_entries(self.objects, image_id, size, category_ids)


def detect(
    network: DenseNetwork,
    images: Sequence[Any],
    read: Callable[[Any], np.ndarray | None] | None = None,
    *,
    batch_size: int = 8,
) -> Iterator[Detected]:
    """Find objects in pictures.

    Args:
        network: Network of detection.
        images: Paths, or whatever `read` takes.
        read: Function to a picture, or to `None` where it cannot be read; `None`: as
            the network's pictures are read.
        batch_size: Pictures at a time.

    Yields:
        What each picture shows, in order.

    Raises:
        RunError: If a detection is not finite.
    """
    known = network.preprocessing
    read = read or _reader(known)
    for start in range(0, len(images), batch_size):
        own = images[start : start + batch_size]
        pictures = [read(image) for image in own]
        batch = np.zeros((len(own), *known.canvas, 3), "float32")
        shapes = [(1, 1)] * len(own)
        for row, picture in enumerate(pictures):
            if picture is not None:
                batch[row], shapes[row] = prepared(picture, known)
        found = network(batch)
        for row, (image, picture) in enumerate(zip(own, pictures)):
            if picture is None:
                yield Detected(image, None)
                continue
            detections = {name: part[row] for name, part in found.items()}
            objects = to_picture(detections, shapes[row], picture.shape[:2])
            yield Detected(image, picture, objects)


@dataclasses.dataclass(frozen=True)
class Way:
    """The way through a picture, as `kmlp.segmentation.segment` takes it.

    Attributes:
        mode, window, stride, scales, flip: Its arguments.
    """

    mode: str
    window: tuple[int, ...] | None = None
    stride: tuple[int, int] | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


def way_of(
    network: DenseNetwork,
    *,
    mode: str | None = None,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool | None = False,
) -> Way:
    """Return what was asked for, and else what the weights were validated with.

    Args:
        network: Network of segmentation.
        mode, window, stride, scales, flip: Arguments of `segment`; `None`: not asked
            for. Windows are the canvas where nothing says another size.

    Raises:
        InputError: If there are windows without `"slide"`, or of another size than the
            network's.
    """
    known = network.preprocessing
    mode = mode or ("slide" if window or stride else known.mode)
    if mode == "whole":
        if window or stride:
            raise InputError(
                "Windows and their stride go with --mode slide. Received: --mode whole"
            )
        return Way(mode, scales=scales or (1.0,), flip=bool(flip))
    fixed: Any = network.input_shape[1:3]
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
    """The class of every pixel of a picture.

    Attributes:
        image: Path.
        picture: Picture `(H, W, 3)`, uint8; `None` where it cannot be read.
        classes: Class numbers `(H, W)`.
    """

    image: str
    picture: np.ndarray | None
    classes: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))

    def shares(self, names: Sequence[str]) -> dict[str, float]:
        """Return the share of the pixels of each class, the largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=len(names))
        order = np.argsort(-counts, kind="stable")
        return {names[k]: counts[k] / self.classes.size for k in order if counts[k]}

    def in_words(self, names: Sequence[str]) -> str:
        """Return the shares in one line."""
        found = self.shares(names).items()
        return ", ".join(f"{name} {share:.1%}" for name, share in found)

    def overlay(self, names: Sequence[str]) -> Image.Image:
        """Return the classes over their picture."""
        assert self.picture is not None
        return draw_classes(self.picture, self.classes, names)

    def class_map(self, names: Sequence[str]) -> Image.Image:
        """Return a picture whose pixels are class numbers, in the classes' colours."""
        image = Image.fromarray(self.classes.astype("uint8"), mode="P")
        colours = np.zeros((256, 3), "uint8")
        known = default_palette(len(names), names[0] == "background")
        colours[: len(known)] = known
        image.putpalette(colours.tobytes())
        return image


def segment_files(
    network: DenseNetwork, images: Iterable[str], way: Way
) -> Iterator[Segmented]:
    """Segment image files.

    Args:
        network: Network of segmentation.
        images: Paths.
        way: How pictures are gone through.

    Yields:
        What each picture shows, in order.
    """
    read = _reader(network.preprocessing)
    for path in images:
        picture = read(path)
        if picture is None:
            yield Segmented(path, None)
        else:
            yield Segmented(path, picture, classes_of(network, picture, way))


def classes_of(network: DenseNetwork, picture: np.ndarray, way: Way) -> np.ndarray:
    """Return the class of every pixel of a picture, at its own size.

    Args:
        network: Network of segmentation.
        picture: Picture `(H, W, 3)`, uint8.
        way: How it is gone through.

    Returns:
        Class numbers `(H, W)`, integers.

    Raises:
        RunError: If scores are not finite.
    """
    image = alone(picture, network.preprocessing)
    scores = segment(network, image, **dataclasses.asdict(way))
    check_finite(scores, "scores", network.path)
    return likeliest_at(scores, picture.shape[:2])


def likeliest_at(scores: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Return the likeliest class of every pixel of scores that are brought to a size.

    One class at a time: scores of many classes at a photograph's size would take
    gigabytes.

    Args:
        scores: Scores `(h, w, K)`, float32.
        size: Height and width.

    Returns:
        Class numbers `(H, W)`, uint8, or int32 of more than 256 classes.
    """
    found = np.zeros(size, np.uint8 if scores.shape[-1] <= 256 else np.int32)
    best = np.full(size, -np.inf, "float32")
    for k in range(scores.shape[-1]):
        resized = resize_bilinear(scores[None, ..., k : k + 1], tuple(size))
        own = keras.ops.convert_to_numpy(resized)[0, ..., 0]
        found[own > best] = k
        np.maximum(best, own, out=best)
    return found
