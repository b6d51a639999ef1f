"""COCO's layout: pictures, and a JSON file of their objects for each split."""

import dataclasses
import json
import math
import os
import re
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


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a file of annotations says, by image in the order of the file.

    Attributes:
        path: of the file.
        ids: `(images,)` as the file has them.
        files: `(images,)` names.
        sizes: `(images, 2)` height and width.
        first: `(images + 1,)`; image i has the objects `first[i]` to `first[i + 1]`.
        bboxes: `(objects, 4)` float64 x, y, width, height.
        areas: `(objects,)` float64.
        crowd: `(objects,)` bool.
        classes: `(objects,)` int32, 0…classes - 1.
        segmentations: polygons or run lengths of each object, or `None`.
        category_ids, class_names: in the order of the classes.
    """

    path: Any
    ids: list
    files: list
    sizes: np.ndarray
    first: np.ndarray
    bboxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    classes: np.ndarray
    segmentations: list
    category_ids: tuple
    class_names: tuple


def read_annotations(path):
    """The annotations of a file.

    Raises:
        InputError: damaged, without what there must be, or naming what there is not.
    """
    content = _parsed(path)
    images, found = content["images"], content["annotations"]
    try:
        categories = sorted(content["categories"], key=lambda item: item["id"])
        names = tuple(str(item["name"]) for item in categories)
        numbers = {item["id"]: number for number, item in enumerate(categories)}
        position = {item["id"]: number for number, item in enumerate(images)}
        files = [str(item["file_name"]) for item in images]
        sizes = [(int(item["height"]), int(item["width"])) for item in images]
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong(path, f"an image or category without {error}") from error
    if not categories:
        raise _wrong(path, "no categories")
    if len(position) != len(images) or len(numbers) != len(categories):
        raise _wrong(path, "an id twice among the images or categories")
    where, rows, segmentations = [], [], []
    for item in found:
        try:
            image, category = item["image_id"], item["category_id"]
            if category not in numbers:
                known = some(map(str, numbers))
                raise _wrong(
                    path,
                    f"annotation {item.get('id')} has category {category}, which is "
                    f"not among the categories ({known})",
                )
            if image not in position:
                raise _wrong(
                    path,
                    f"annotation {item.get('id')} is of image {image}, which is not "
                    "among the images",
                )
            x, y, width, height = map(float, item["bbox"])
            area = float(item.get("area", width * height))
            crowd = bool(item.get("iscrowd", 0))
        except (KeyError, TypeError, ValueError) as error:
            what = f"annotation {_id(item)} without a good {error}"
            raise _wrong(path, what) from error
        if not all(map(math.isfinite, (x, y, width, height, area))):
            raise _wrong(path, f"annotation {_id(item)} with numbers not finite")
        where.append(position[image])
        rows.append((x, y, width, height, area, crowd, numbers[category]))
        try:
            segmentation = _compact(item.get("segmentation"), sizes[position[image]])
        except (KeyError, TypeError, ValueError) as error:
            what = f"segmentation of annotation {_id(item)}: {error}"
            raise _wrong(path, what) from error
        segmentations.append(segmentation)
    order = np.argsort(np.array(where, int), kind="stable")
    table = np.array(rows, float).reshape(-1, 7)[order]
    return Annotations(
        path=path,
        ids=[item["id"] for item in images],
        files=files,
        sizes=np.array(sizes, "int32").reshape(-1, 2),
        first=np.searchsorted(np.array(where, int)[order], range(len(images) + 1)),
        bboxes=table[:, :4],
        areas=table[:, 4],
        crowd=table[:, 5] > 0,
        classes=table[:, 6].astype("int32"),
        segmentations=[segmentations[number] for number in order],
        category_ids=tuple(numbers),
        class_names=names,
    )


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
    """Run lengths as they are; polygons as arrays: COCO has a hundred million numbers.

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


def _id(item):
    return item.get("id") if isinstance(item, dict) else item


def _wrong(path, what):
    return InputError(
        f"--data takes COCO's annotations, and this file is not as they are: {what}. "
        f"Received: {str(path)!r}"
    )


LAYOUT = (
    "--data coco:DIR takes a folder with annotations/instances_trainYEAR.json and "
    "annotations/instances_valYEAR.json, and the images in trainYEAR and valYEAR or in "
    "train and val"
)
_FILE = re.compile(r"instances_(train|val)(\d*)\.json")
# Of the reference frameworks: pictures with a shorter side are not trained on.
SHORTEST = 32


def coco(folder, on_corrupt="stop"):
    """A folder in COCO's layout, listed but not read, as a `DenseSource`.

    Classes are the categories in the order of their ids. Objects marked as crowds, and
    boxes that have no area within their image, are not learned from; scoring sees them
    all. As in the reference frameworks, pictures without an object to learn from, and
    those with a side below 32 pixels, are not trained on but validated on.

    Args:
        folder: `pathlib.Path`.
        on_corrupt: `"stop"` or `"skip"` where pictures cannot be read.

    Raises:
        InputError: no such folder, files that are missing or damaged, nothing to train
            on.
    """
    found = {}
    for split in ("train", "val"):
        path, images = _places(folder, split)
        found[split] = CocoSplit(read_annotations(path), images, on_corrupt)
    train, validation = found["train"], found["val"]
    names = train.data.class_names
    if (names, train.data.category_ids) != (
        validation.data.class_names,
        validation.data.category_ids,
    ):
        other = validation.data.class_names
        raise InputError(
            "The annotations of train and val must have the same categories; "
            f"{differences(names, other, 'train', 'val')}. Received: {str(folder)!r}"
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
        category_ids=train.data.category_ids,
        notes=tuple(notes),
    )


class CocoSplit(DenseSplit):
    """The pictures of one file of annotations.

    Args:
        data: `Annotations`.
        folder: of the pictures.
        on_corrupt: `"stop"` or `"skip"`.
        chosen: `(count,)` which pictures of the file; `None`: all.
    """

    def __init__(self, data, folder, on_corrupt, chosen=None):
        self.name, self.data = str(folder), data
        self.folder, self.on_corrupt = folder, on_corrupt
        self.chosen = np.arange(len(data.ids)) if chosen is None else chosen
        if chosen is None:
            _check_files(data, folder)
        corners = data.bboxes[:, :2], data.bboxes[:, :2] + data.bboxes[:, 2:]
        owner = np.repeat(np.arange(len(data.ids)), np.diff(data.first))
        limits = data.sizes[owner][:, ::-1]
        corners = [np.clip(corner, 0, limits) for corner in corners]
        self._boxes = np.concatenate(corners, axis=1).astype("float32")
        empty = (corners[1] <= corners[0]).any(1) | (data.areas <= 0)
        self._empty = empty & ~data.crowd
        self._learned = ~empty & ~data.crowd

    @property
    def count(self):
        return len(self.chosen)

    def image(self, index):
        image = read_image(self.place(index))
        stated = self.image_size(index)
        if image.shape[:2] != stated:
            raise Unreadable(
                self.place(index),
                f"{image.shape[0]} x {image.shape[1]} pixels, and in the annotations "
                f"{stated[0]} x {stated[1]}",
            )
        return image

    def annotation(self, index):
        place = self.chosen[index]
        some = np.arange(*self.data.first[place : place + 2])
        some = some[self._learned[some]]
        size = self.image_size(index)

        return Objects(
            boxes=self._boxes[some],
            classes=self.data.classes[some],
            size=size,
            draw=lambda k: self._drawn(some[k], size),
        )

    def image_size(self, index):
        return tuple(self.data.sizes[self.chosen[index]].tolist())

    def place(self, index):
        return os.path.join(self.folder, self.data.files[self.chosen[index]])

    def image_id(self, index):
        return self.data.ids[self.chosen[index]]

    def truth(self, index):
        """All objects of a picture as COCO's annotations have them, without their ids.

        Those without a segmentation have their box.
        """
        place = self.chosen[index]
        data = self.data
        return [
            {
                "category_id": data.category_ids[data.classes[k]],
                "bbox": data.bboxes[k].tolist(),
                "area": float(data.areas[k]),
                "iscrowd": int(data.crowd[k]),
                "segmentation": data.segmentations[k] or _outline(data.bboxes[k]),
            }
            for k in range(*data.first[place : place + 2])
        ]

    def trainable(self):
        """The split without pictures that nothing is learned from."""
        learned = np.add.accumulate(np.append(0, self._learned))[self.data.first]
        large = self.data.sizes.min(1, initial=2**31 - 1) >= SHORTEST
        chosen = np.flatnonzero((np.diff(learned) > 0) & large)
        return CocoSplit(self.data, self.folder, self.on_corrupt, chosen)

    def notes(self):
        """What is left out of the file's objects."""
        lost = int(self._empty.sum())
        if not lost:
            return []
        objects = "1 object has" if lost == 1 else f"{lost:,} objects have"
        return [f"{self.name}: {objects} no area within the image and left out"]

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


def _places(folder, split):
    """The file of annotations of a split and the folder of its pictures."""
    check_folder(folder, LAYOUT)
    home = folder / "annotations"
    files = sorted(home.iterdir()) if home.is_dir() else []
    matches = [(path, _FILE.fullmatch(path.name)) for path in files]
    matches = [
        (path, match[2]) for path, match in matches if match and match[1] == split
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


def _check_files(data, folder):
    present = set(os.listdir(folder))
    missing = [
        name
        for name in data.files
        if name not in present and not os.path.exists(os.path.join(folder, name))
    ]
    if missing:
        raise InputError(
            f"{len(missing):,} of the {len(data.files):,} images that {data.path.name} "
            f"names are not there: {some(missing)}. Received: {str(folder)!r}"
        )
