"""COCO's files of annotations, checked and kept compactly."""

import dataclasses
import json
import math
from typing import Any

import numpy as np

from kmlp.console import some
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


def read(path):
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
