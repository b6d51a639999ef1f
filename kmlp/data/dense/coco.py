"""COCO's layout: pictures, and a JSON file of their objects for each split."""

import os
import re

import numpy as np

from kmlp.console import some
from kmlp.data.dense import coco_json, results
from kmlp.data.dense.palettes import palette
from kmlp.data.dense.source import (
    DenseSource,
    DenseSplit,
    Objects,
    Unreadable,
    read_image,
)
from kmlp.errors import InputError

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
        found[split] = CocoSplit(coco_json.read(path), images, on_corrupt)
    train, validation = found["train"], found["val"]
    names = train.data.class_names
    if (names, train.data.category_ids) != (
        validation.data.class_names,
        validation.data.category_ids,
    ):
        other = validation.data.class_names
        raise InputError(
            "The annotations of train and val must have the same categories; only in "
            f"train: {some(set(names) - set(other))}; only in val: "
            f"{some(set(other) - set(names))}. Received: {str(folder)!r}"
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
        data: `coco_json.Annotations`.
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
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{LAYOUT}; this {what}. Received: {str(folder)!r}")
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
