"""COCO's layout: pictures, and a JSON file of their objects for each split."""

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import some
from kmlp.data.dense import results
from kmlp.data.dense.source import (
    DenseSource,
    DenseSplit,
    Objects,
    Unreadable,
    palette,
    read_image,
)
from kmlp.data.images import check_folder, differences
from kmlp.errors import InputError

LAYOUT = (
    "--data coco:DIR takes a folder with annotations/instances_trainYEAR.json and "
    "annotations/instances_valYEAR.json, and the images in trainYEAR and valYEAR or in "
    "train and val"
)
_FILE = re.compile(r"instances_(train|val)(\d*)\.json")
# Of the reference frameworks: pictures with a shorter side are not trained on.
SHORTEST = 32
# Exceptions from reading an entry that lacks something or has something else.
_MISSHAPEN = (KeyError, TypeError, ValueError)


def coco(folder: Path, on_corrupt: str = "stop") -> DenseSource:
    """List a folder in COCO's layout, without reading its pictures.

    Classes are the categories in the order of their ids. Objects marked as crowds, and
    boxes that have no area within their image, are not learned from; scoring sees them
    all. As in the reference frameworks, pictures without an object to learn from, and
    those with a side below 32 pixels, are not trained on but validated on.

    Args:
        folder: Folder of the data set.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such folder, files are missing or damaged, or there
            is nothing to train on.
    """
    train, validation = (_split(folder, name, on_corrupt) for name in ("train", "val"))
    ours, theirs = train.data, validation.data
    names, ids = ours.class_names, ours.category_ids
    if (names, ids) != (theirs.class_names, theirs.category_ids):
        raise InputError(
            "The annotations of train and val must have the same categories; "
            f"{differences(names, theirs.class_names, 'train', 'val')}. "
            f"Received: {str(folder)!r}"
        )
    notes = [*train.notes(), *validation.notes()]
    everything = train.count
    train = train.trainable()
    if train.count < everything:
        notes.append(
            f"{train.name}: {everything - train.count:,} of {everything:,} images are "
            "not trained on: they hold no object to learn from, or are too small"
        )
    for split in (train, validation):
        if not split.count:
            raise InputError(f"There are no images to use. Received: {split.name}")
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
        segmentations: Polygons or run lengths of each object, or `None`.
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


class CocoSplit(DenseSplit):
    """The pictures of one file of annotations.

    Args:
        data: Entries of the file.
        folder: Folder of the pictures.
        on_corrupt: What to do with damaged files, `"stop"` or `"skip"`.
        chosen: Numbers `(count,)` of pictures in the file; `None`: all.
    """

    def __init__(
        self,
        data: Annotations,
        folder: Path,
        on_corrupt: str,
        chosen: np.ndarray | None = None,
    ):
        self.name, self.data = str(folder), data
        self.folder, self.on_corrupt = folder, on_corrupt
        self.chosen = np.arange(len(data.ids)) if chosen is None else chosen
        self.count = len(self.chosen)
        corners = data.bboxes[:, :2], data.bboxes[:, :2] + data.bboxes[:, 2:]
        owner = np.repeat(np.arange(len(data.ids)), np.diff(data.first))
        limits = data.sizes[owner][:, ::-1]
        low, high = (np.clip(corner, 0, limits) for corner in corners)
        self._boxes = np.concatenate([low, high], axis=1).astype("float32")
        empty = (high <= low).any(1) | (data.areas <= 0)
        self._empty = empty & ~data.crowd
        self._learned = ~empty & ~data.crowd

    def image(self, index: int) -> np.ndarray:
        image = read_image(self.place(index))
        stated = self.image_size(index)
        if image.shape[:2] != stated:
            raise Unreadable(
                self.place(index),
                f"{image.shape[0]} x {image.shape[1]} pixels, and in the annotations "
                f"{stated[0]} x {stated[1]}",
            )
        return image

    def annotation(self, index: int) -> Objects:
        some = np.arange(*self._span(index))
        some = some[self._learned[some]]
        size = self.image_size(index)
        return Objects(
            boxes=self._boxes[some],
            classes=self.data.classes[some],
            size=size,
            draw=lambda k: self._drawn(some[k], size),
        )

    def image_size(self, index: int) -> tuple[int, int]:
        return tuple(self.data.sizes[self.chosen[index]].tolist())

    def place(self, index: int) -> str:
        return os.path.join(self.folder, self.data.files[self.chosen[index]])

    def image_id(self, index: int) -> Any:
        return self.data.ids[self.chosen[index]]

    def truth(self, index: int) -> list[dict[str, Any]]:
        """Return all objects of a picture; those without a segmentation have a box."""
        data = self.data
        return [
            {
                "category_id": data.category_ids[data.classes[k]],
                "bbox": data.bboxes[k].tolist(),
                "area": float(data.areas[k]),
                "iscrowd": int(data.crowd[k]),
                "segmentation": data.segmentations[k] or _outline(data.bboxes[k]),
            }
            for k in range(*self._span(index))
        ]

    def trainable(self) -> "CocoSplit":
        """Return the split without pictures that nothing is learned from."""
        learned = np.add.accumulate(np.append(0, self._learned))[self.data.first]
        large = self.data.sizes.min(1, initial=2**31 - 1) >= SHORTEST
        chosen = np.flatnonzero((np.diff(learned) > 0) & large)
        return CocoSplit(self.data, self.folder, self.on_corrupt, chosen)

    def notes(self) -> list[str]:
        """Say what is left out of the file's objects."""
        lost = int(self._empty.sum())
        if not lost:
            return []
        objects = "1 object has" if lost == 1 else f"{lost:,} objects have"
        return [f"{self.name}: {objects} no area within the image and left out"]

    def _span(self, index):
        place = self.chosen[index]
        return self.data.first[place : place + 2]

    def _drawn(self, number, size):
        segmentation = self.data.segmentations[number]
        if segmentation is None:  # the box is all there is
            x1, y1, x2, y2 = np.rint(self._boxes[number]).astype(int)
            mask = np.zeros(size, "uint8")
            mask[y1:y2, x1:x2] = 1
            return mask
        return results.drawn(segmentation, size)


def _outline(bbox):
    x, y, width, height = bbox.tolist()
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _split(folder, name, on_corrupt):
    path, images = _places(folder, name)
    data = read_annotations(path)
    present = set(os.listdir(images))
    missing = [
        name
        for name in data.files
        if name not in present and not os.path.exists(os.path.join(images, name))
    ]
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(data.files):,} images that {path.name} "
            f"names are not there: {some(missing)}. Received: {str(images)!r}"
        )
    return CocoSplit(data, images, on_corrupt)


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
        known = some(map(str, numbers))
        raise _Wrong(
            f"has category {category}, which is not among the categories ({known})"
        )
    if image not in position:
        raise _Wrong(f"is of image {image}, which is not among the images")
    x, y, width, height = map(float, item["bbox"])
    area = float(item.get("area", width * height))
    if not all(map(math.isfinite, (x, y, width, height, area))):
        raise _Wrong("with numbers not finite")
    crowd = bool(item.get("iscrowd", 0))
    return position[image], x, y, width, height, area, crowd, numbers[category]


def _parsed(path):
    try:
        with open(path, encoding="utf-8") as file:
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

    What encloses nothing is left out, as the reference frameworks do.
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
    polygons = [np.array(polygon, float).ravel() for polygon in segmentation]
    return [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0] or None


def _wrong(path, what):
    return InputError(
        f"--data takes COCO's annotations, and this file is not as they are: {what}. "
        f"Received: {str(path)!r}"
    )
