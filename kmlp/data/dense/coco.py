"""COCO's layout: pictures, and a JSON file of their objects for each split."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import first_line, some
from kmlp.data.dense import results
from kmlp.data.dense.source import (
    DenseSource,
    DenseSplit,
    Objects,
    palette,
)
from kmlp.data.image_files import ignored_in_words, list_images
from kmlp.data.images import check_folder, differences
from kmlp.data.pictures import Unreadable, orientation_of, read_image
from kmlp.errors import InputError

LAYOUT = (
    "--data coco:DIR takes a folder with annotations/instances_trainYEAR.json and "
    "annotations/instances_valYEAR.json, and the images in trainYEAR and valYEAR or in "
    "train and val"
)
_FILE = re.compile(r"instances_(train|val)(\d*)\.json")
# Of the reference frameworks: pictures with a shorter side are not trained on.
SHORTEST = 32
# Image sides from which on a polygon's corners are no longer near it.
FARTHEST = 10
# Exceptions from reading an entry that lacks something or has something else.
_MISSHAPEN = (KeyError, TypeError, ValueError)


def coco(folder: Path, on_corrupt: str = "stop", upright: bool = False) -> DenseSource:
    """List a folder in COCO's layout, without reading its pictures.

    Classes are the categories in the order of their ids. Objects marked as crowds, and
    boxes that have no area within their image, are not learned from; scoring sees them
    all. As in the reference frameworks, pictures without an object to learn from, and
    those with a side below 32 pixels, are not trained on but validated on.

    Args:
        folder: Folder of the data set.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.

    Raises:
        InputError: If there is no such folder, files are missing or damaged, or there
            is nothing to train on.
    """
    train, validation = (
        _split(folder, name, on_corrupt, upright) for name in ("train", "val")
    )
    ours, theirs = train.data, validation.data
    names, ids = ours.class_names, ours.category_ids
    if (names, ids) != (theirs.class_names, theirs.category_ids):
        raise InputError(
            "The annotations of train and val must have the same categories; "
            f"{differences(names, theirs.class_names, 'train', 'val')}. "
            f"Received: {str(folder)!r}"
        )
    notes = [*train.notes(), *validation.notes()]
    everything, reasons = train.count, train.untrainable()
    train = train.trainable()
    if reasons:
        left = f"{everything - train.count:,} of {everything:,} images are not trained"
        notes.append(f"{train.name}: {left} on: {reasons}")
    for split, why in ((train, reasons), (validation, "")):
        if not split.count:
            raise InputError(
                f"There are no images to use: {why or 'the annotations name none'}. "
                f"Received: {split.name}"
            )
    return DenseSource(
        name=f"coco:{folder}",
        task="detection",
        class_names=names,
        train=train,
        validation=validation,
        palette=palette(len(names)),
        category_ids=ids,
        notes=tuple(notes),
    )


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The entries of a file of annotations, by image in the order of the file.

    Attributes:
        path: Path of the file.
        ids: Numbers `(images,)` as the file has them.
        files: File names `(images,)`.
        sizes: Height and width, `(images, 2)`.
        first: Offsets `(images + 1,)`: image i has the objects `first[i]` to `first[i +
            1]`.
        bboxes: Boxes `(objects, 4)`, float64: x, y, width, height.
        areas: Areas `(objects,)`, float64.
        crowd: Crowd marks `(objects,)`, bool.
        classes: Classes `(objects,)`, int32, 0…classes - 1.
        segmentations: Polygons or run lengths of each object, `None` where it has no
            mask.
        category_ids, class_names: Categories in the order of the classes.
    """

    path: Path
    ids: list[Any]
    files: list[str]
    sizes: np.ndarray
    first: np.ndarray
    bboxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    classes: np.ndarray
    segmentations: list[Any]
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def owner(self) -> np.ndarray:
        """Return the number of the image of each object, `(objects,)`."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.first))

    @property
    def limits(self) -> np.ndarray:
        """Return width and height of the image of each object, `(objects, 2)`."""
        return self.sizes[self.owner][:, ::-1]


class CocoSplit(DenseSplit):
    """The pictures of one file of annotations.

    Args:
        data: Entries of the file.
        folder: Folder of the pictures.
        on_corrupt: What to do with damaged files, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.
        ignored: What else lies there, in words.
        chosen: Numbers `(count,)` of pictures in the file; `None`: all.
    """

    def __init__(
        self,
        data: Annotations,
        folder: Path,
        on_corrupt: str,
        upright: bool = False,
        ignored: str = "",
        chosen: np.ndarray | None = None,
    ):
        self.name, self.data = str(folder), data
        self.folder, self.on_corrupt, self.upright = folder, on_corrupt, upright
        self.ignored = ignored
        self.chosen = np.arange(len(data.ids)) if chosen is None else chosen
        self.count = len(self.chosen)
        corners = data.bboxes[:, :2], data.bboxes[:, :2] + data.bboxes[:, 2:]
        low, high = (np.clip(corner, 0, data.limits) for corner in corners)
        self._boxes = np.concatenate([low, high], axis=1).astype("float32")
        empty = (high <= low).any(1) | (data.areas <= 0)
        self._empty = empty & ~data.crowd
        self._learned = ~empty & ~data.crowd
        self._masked = np.array([s is not None for s in data.segmentations], bool)
        self.masks = bool((self._learned & self._masked).any())

    def image(self, index: int) -> np.ndarray:
        place, stated = self.place(index), self.image_size(index)
        image = read_image(place, self.upright)
        if image.shape[:2] != stated:
            why = (
                f"{image.shape[0]} x {image.shape[1]} pixels, and in the annotations "
                f"{stated[0]} x {stated[1]}"
            )
            if image.shape[1::-1] == stated and orientation_of(place) >= 5:
                other = "ignore" if self.upright else "apply"
                why += f", which EXIF's orientation explains: pass --exif {other}"
            raise Unreadable(place, why)
        return image

    def annotation(self, index: int) -> Objects:
        some = np.arange(*self._span(index))
        some = some[self._learned[some]]
        size = self.image_size(index)
        return Objects(
            boxes=self._boxes[some],
            classes=self.data.classes[some],
            size=size,
            draw=lambda k: self._drawn(some[k], index),
        )

    def image_size(self, index: int) -> tuple[int, int]:
        return tuple(self.data.sizes[self.chosen[index]].tolist())

    def place(self, index: int) -> str:
        return os.path.join(self.folder, self.data.files[self.chosen[index]])

    def image_id(self, index: int) -> Any:
        return self.data.ids[self.chosen[index]]

    def truth(self, index: int) -> list[dict[str, Any]]:
        """Return all objects of a picture; `None` stands for a mask that is not there.

        Raises:
            Unreadable: If run lengths are damaged and `on_corrupt` is `"stop"`.
        """
        data = self.data
        return [
            {
                "category_id": data.category_ids[data.classes[k]],
                "bbox": data.bboxes[k].tolist(),
                "area": float(data.areas[k]),
                "iscrowd": int(data.crowd[k]),
                "segmentation": self._scored(k, index),
            }
            for k in range(*self._span(index))
        ]

    def _scored(self, number, index):
        """Return a segmentation that COCO's library reads, or `None`."""
        segmentation = self.data.segmentations[number]
        if isinstance(segmentation, dict):
            try:
                self._drawn(number, index)
            except Unreadable:
                if self.on_corrupt == "stop":
                    raise
                return None
        return segmentation

    def trainable(self) -> "CocoSplit":
        """Return the split without pictures that nothing is learned from."""
        chosen = np.flatnonzero(~np.any(list(self._reasons().values()), axis=0))
        common = (self.data, self.folder, self.on_corrupt, self.upright, self.ignored)
        return CocoSplit(*common, chosen)

    def untrainable(self) -> str:
        """Say how many pictures are not trained on for which reason; `""` for none."""
        counts = {why: int(some.sum()) for why, some in self._reasons().items()}
        return ", ".join(f"{n:,} {why}" for why, n in counts.items() if n)

    def _reasons(self):
        """Return `{why pictures are not trained on: (images,) bool}`."""

        def count(objects: np.ndarray) -> np.ndarray:
            return np.diff(np.add.accumulate(np.append(0, objects))[self.data.first])

        without = np.diff(self.data.first) == 0
        crowds = ~without & (count(~self.data.crowd) == 0)
        useless = ~without & ~crowds & (count(self._learned) == 0)
        small = self.data.sizes.min(1, initial=2**31 - 1) < SHORTEST
        return {
            "without objects": without,
            "with crowds alone": crowds,
            "with no object that has an area within the image": useless,
            f"with a side below {SHORTEST} pixels": small
            & ~(without | crowds | useless),
        }

    def notes(self) -> list[str]:
        """Say what is left out of the file's objects, and what looks wrong in them."""
        lost = int(self._empty.sum())
        bare = int((self._learned & ~self._masked).sum())
        notes = []
        if lost:
            notes.append(f"{_objects(lost)} no area within the image and left out")
        if bare and self.masks:
            notes.append(f"{_objects(bare)} no mask; masks are not learned from them")
        notes += _suspicions(self.data)
        notes += [self.ignored] * bool(self.ignored)
        return [f"{self.name}: {note}" for note in notes]

    def doubts(self) -> list[str]:
        """Say what looks wrong in boxes and masks, one by one."""
        data = self.data
        ends = data.bboxes[:, :2] + data.bboxes[:, 2:]
        beyond = (data.bboxes[:, :2] < -1) | (ends > data.limits + 1)
        rows = np.column_stack([data.owner, data.classes, data.bboxes])
        twice = len(rows) - len(np.unique(rows, axis=0))
        apart = sum(
            _apart(segmentation, box)
            for segmentation, box in zip(data.segmentations, data.bboxes)
        )
        counts = {
            "reach beyond their image": int(beyond.any(1).sum()),
            "stand there twice": twice,
            "have a mask that is elsewhere or of another size than the box": apart,
        }
        return [
            f"{self.name}: {count:,} of {len(rows):,} objects {what}"
            for what, count in counts.items()
            if count
        ]

    def _span(self, index):
        place = self.chosen[index]
        return self.data.first[place : place + 2]

    def _drawn(self, number, index):
        """Return the mask of an object, `None` where it has none."""
        segmentation = self.data.segmentations[number]
        if segmentation is None:
            return None
        results.library()  # refuse where there is none
        try:
            return results.drawn(segmentation, self.image_size(index))
        # Whatever the library makes of run lengths that are none.
        except Exception as error:
            why = f"run lengths of a mask that are damaged: {first_line(error)}"
            raise Unreadable(self.place(index), why) from error


def _objects(count):
    return "1 object has" if count == 1 else f"{count:,} objects have"


def _apart(segmentation, box):
    """Return whether polygons do not fill their box, x, y, width and height."""
    if not isinstance(segmentation, list):
        return False
    points = np.concatenate(segmentation).reshape(-1, 2)
    ends = np.concatenate([points.min(0), points.max(0)])
    stated = np.concatenate([box[:2], box[:2] + box[2:]])
    slack = np.maximum(2, 0.1 * np.tile(box[2:], 2))
    return bool((np.abs(ends - stated) > slack).any())


# Shares of boxes that reach beyond their images, and of those that would not if they
# were corners, from which on boxes are taken for such.
_BEYOND, _WITHIN = 0.1, 0.99


def _suspicions(data):
    """Say where boxes look as other formats have them."""
    if not len(data.bboxes):
        return []
    limits = data.limits + 1
    low, sides = data.bboxes[:, :2], data.bboxes[:, 2:]
    if data.bboxes.max() <= 1 and limits.max() > 3:
        return [
            "boxes look like fractions of the image's sides; COCO's are x, y, width "
            "and height in pixels"
        ]
    beyond = (low + sides > limits).any(1)
    corners = ((sides > low) & (sides <= limits)).all(1)
    if beyond.mean() >= _BEYOND and corners.mean() >= _WITHIN:
        return [
            f"boxes look like corners, x1, y1, x2, y2 ({beyond.mean():.0%} reach "
            "beyond their images); COCO's are x, y, width and height"
        ]
    return []


def _split(folder, name, on_corrupt, upright):
    path, images = _places(folder, name)
    data = read_annotations(path)
    there = list_images(images)
    present = {os.path.relpath(file, images) for file in there.paths}
    found = [_file(images, name, present) for name in data.files]
    missing = [name for name, file in zip(data.files, found) if file is None]
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(data.files):,} images that {path.name} "
            f"names are not there: {some(missing)}. Received: {str(images)!r}"
        )
    ignored = there.ignored
    unnamed = len(present - set(found))
    ignored += {f"images that {path.name} does not name": unnamed} if unnamed else {}
    words = ignored_in_words(ignored)
    data = dataclasses.replace(data, files=found)
    return CocoSplit(data, images, on_corrupt, upright, words)


def _file(folder, name, present):
    """Return the path within a folder of the file that annotations name, or `None`.

    Some tools write other folders before the name, and Windows' separators.
    """
    posix = name.replace("\\", "/")
    for path in (name, posix, posix.rpartition("/")[2]):
        if path in present or os.path.isfile(os.path.join(folder, path)):
            return path
    return None


def _places(folder, split):
    """Return the file of annotations of a split and the folder of its pictures."""
    check_folder(folder, LAYOUT)
    home = folder / "annotations"
    files = sorted(home.iterdir()) if home.is_dir() else []
    matches = [
        (path, match[2])
        for path in files
        if (match := _FILE.fullmatch(path.name)) and match[1] == split
    ]
    if not matches:
        raise InputError(
            f"{LAYOUT}; there is no annotations/instances_{split}*.json. "
            f"Received: {str(folder)!r}"
        )
    for path, year in reversed(matches):  # the latest year that has pictures
        for name in (split + year, split, f"images/{split}{year}", f"images/{split}"):
            if (folder / name).is_dir():
                return path, folder / name
    year = matches[-1][1]
    wanted = f"{split}{year} nor {split}" if year else split
    raise InputError(
        f"{LAYOUT}; there is {'neither' if year else 'no'} {wanted} for "
        f"{matches[-1][0].name}. Received: {str(folder)!r}"
    )


def read_annotations(path: Path) -> Annotations:
    """Read a file of annotations.

    Raises:
        InputError: If it is damaged, lacks what there must be, or names what there is
            not.
    """
    content = _parsed(path)
    images = content["images"]
    try:
        categories = sorted(content["categories"], key=lambda item: item["id"])
        names = tuple(str(item["name"]) for item in categories)
        numbers = {item["id"]: number for number, item in enumerate(categories)}
        position = {item["id"]: number for number, item in enumerate(images)}
        files = [str(item["file_name"]) for item in images]
        sizes = [(int(item["height"]), int(item["width"])) for item in images]
    except _MISSHAPEN as error:
        raise _wrong(path, f"an image or category without {error}") from error
    if not categories:
        raise _wrong(path, "no categories")
    if len(position) != len(images) or len(numbers) != len(categories):
        raise _wrong(path, "an id twice among the images or categories")
    rows, segmentations = [], []
    for item in content["annotations"]:
        what = f"annotation {item.get('id') if isinstance(item, dict) else item}"
        try:
            row = _row(item, numbers, position)
        except _Wrong as error:
            raise _wrong(path, f"{what} {error}") from error
        except _MISSHAPEN as error:
            raise _wrong(path, f"{what} without a good {error}") from error
        try:
            segmentation = _compact(item.get("segmentation"), sizes[int(row[0])])
        except _MISSHAPEN as error:
            raise _wrong(path, f"segmentation of {what}: {error}") from error
        if row[5] <= 0:  # of the mask, or else of the box
            row = (*row[:5], _area(segmentation) or max(row[3] * row[4], 0), *row[6:])
        rows.append(row)
        segmentations.append(segmentation)
    table = np.array(rows, float).reshape(-1, 8)
    order = np.argsort(table[:, 0], kind="stable")
    table = table[order]
    return Annotations(
        path=path,
        ids=[item["id"] for item in images],
        files=files,
        sizes=np.array(sizes, "int32").reshape(-1, 2),
        first=np.searchsorted(table[:, 0], range(len(images) + 1)),
        bboxes=table[:, 1:5],
        areas=table[:, 5],
        crowd=table[:, 6] > 0,
        classes=table[:, 7].astype("int32"),
        segmentations=[segmentations[number] for number in order],
        category_ids=tuple(numbers),
        class_names=names,
    )


class _Wrong(Exception):
    """An annotation that has everything and does not fit."""


def _row(item, numbers, position):
    """Return an annotation's image, box, area, crowd and class as numbers."""
    image, category = item["image_id"], item["category_id"]
    if category not in numbers:
        known = some(map(json.dumps, numbers))
        raise _Wrong(
            f"has category {json.dumps(category)}, which is not among the categories "
            f"({known})"
        )
    if image not in position:
        known = some(map(json.dumps, position))
        raise _Wrong(
            f"is of image {json.dumps(image)}, which is not among the images ({known})"
        )
    x, y, width, height = map(float, item["bbox"])
    area = float(item.get("area") or 0)
    if not all(map(math.isfinite, (x, y, width, height, area))):
        raise _Wrong("with numbers not finite")
    crowd = _crowd(item.get("iscrowd"))
    return position[image], x, y, width, height, area, crowd, numbers[category]


def _crowd(value):
    """Return whether a mark says a crowd; tools write it as text and in lists too."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    number = {"": 0, "false": 0, "true": 1}.get(str(inner or 0).lower(), inner or 0)
    try:
        return bool(float(number))
    except (TypeError, ValueError) as error:
        shown = json.dumps(value)
        raise _Wrong(f"with iscrowd {shown}, which is neither 0 nor 1") from error


def _parsed(path):
    try:
        # Some editors put a mark before the text.
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, f"damaged: {error}") from error
    if not isinstance(content, dict):
        raise _wrong(path, f"a {type(content).__name__}, not an object")
    wanted = ("images", "annotations", "categories")
    missing = [key for key in wanted if not isinstance(content.get(key), list)]
    if missing:
        raise _wrong(path, f"without a list of {' and of '.join(missing)}")
    return content


def _compact(segmentation, size):
    """Return run lengths as they are and polygons as arrays: COCO has 10^8 numbers.

    What encloses nothing is left out, as the reference frameworks do; `None` is left of
    a mask that has nothing else.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        stated, counts = tuple(segmentation["size"]), segmentation["counts"]
        if stated != size:
            raise ValueError(
                f"a mask of {' x '.join(map(str, stated))} for an image of "
                f"{' x '.join(map(str, size))}"
            )
        if not isinstance(counts, str) and sum(counts) != size[0] * size[1]:
            raise ValueError(
                f"{sum(counts):,} pixels in the run lengths of {size[0] * size[1]:,}"
            )
        return {"size": list(size), "counts": counts}
    if not isinstance(segmentation[0], list):  # one polygon without its list
        segmentation = [segmentation]
    polygons = [np.array(p, float).ravel() for p in segmentation if p is not None]
    return [p for p in polygons if _encloses(p, max(size))] or None


def _encloses(polygon, side):
    """Return whether numbers are a polygon near an image; far ones cost memory."""
    shaped = len(polygon) >= 6 and len(polygon) % 2 == 0
    return shaped and bool((np.abs(polygon) <= FARTHEST * side).all())


def _area(segmentation):
    """Return the area that polygons enclose, 0 of run lengths and of no mask."""
    if not isinstance(segmentation, list):
        return 0
    x_y = [(p[::2], p[1::2]) for p in segmentation]
    return sum(float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2 for x, y in x_y)


def _wrong(path, what):
    return InputError(
        f"--data takes COCO's annotations, and this file is not as they are: {what}. "
        f"Received: {str(path)!r}"
    )
