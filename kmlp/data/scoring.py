"""Scores of classes, of objects as COCO counts them, and of class maps."""

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kmlp.data.dense.results import library
from kmlp.data.dense.source import VOID, DenseSource, DenseSplit
from kmlp.data.pictures import Unreadable
from kmlp.errors import InputError, RunError
from kmlp.typing import PathLike

TOP = 5


def check_finite(values: np.ndarray, what: str, path: PathLike | None = None) -> None:
    """Refuse what damaged weights give.

    Args:
        values: Numbers.
        what: Name of the values.
        path: Path of the weights; `None`: the message names a value.

    Raises:
        RunError: If a value is not finite.
    """
    wrong = values[~np.isfinite(values)]
    if wrong.size:
        raise RunError(
            f"The weights give {what} that are not finite: they are damaged, or "
            "trained to divergence. "
            f"Received: {wrong[0] if path is None else repr(str(path))}"
        )


class Score:
    """Top-1 and top-5 of images that may have several right classes, or none.

    An image counts as right where one of its classes is among the first answers; one
    without a class does not count at all, as ImageNet-ReaL has it (arXiv:2006.07159,
    section 3). Of equal answers the lower class comes first.

    Args:
        truth: Right classes of each image.
        classes: Number of outputs.

    Attributes:
        count: Number of images so far.
        top1, top5: Numbers of them that were right.
    """

    def __init__(self, truth: Sequence[Sequence[int]], classes: int):
        self.truth, self.classes = truth, classes
        self.count = self.top1 = self.top5 = 0

    def add(self, outputs: np.ndarray, images: Iterable[int]) -> None:
        """Count a batch.

        Args:
            outputs: Outputs `(N, classes)`.
            images: Indices `(N,)` into `truth`.

        Raises:
            RunError: If an output is not finite.
        """
        check_finite(outputs, "outputs")
        order = np.argsort(-outputs, axis=-1, kind="stable")[:, :TOP]
        for answers, image in zip(order.tolist(), images):
            right = self.truth[image]
            if len(right):
                self.count += 1
                self.top1 += answers[0] in right
                self.top5 += any(answer in right for answer in answers)

    def shares(self) -> dict[str, float]:
        """Return `{"images", "top1", "top5"}`, the latter in 0…1.

        Raises:
            InputError: If there was no image with a class.
        """
        if not self.count:
            raise InputError("No image has a label: nothing was evaluated.")
        top1, top5 = self.top1 / self.count, self.top5 / self.count
        return {"images": self.count, "top1": top1, "top5": top5}


# Places in what pycocotools sums up.
_PLACES = {
    "AP": 0,
    "AP50": 1,
    "AP75": 2,
    "AP_small": 3,
    "AP_medium": 4,
    "AP_large": 5,
    "AR": 8,
}


def truth(
    split: DenseSplit, source: DenseSource, indices: Iterable[int] | None = None
) -> dict[str, Any]:
    """Return the objects of pictures, as a file of COCO's annotations has them.

    Args:
        split: Pictures of `source`.
        source: Data set of detection.
        indices: Numbers of pictures; `None`: all.

    Raises:
        InputError: If an annotation is damaged.
    """
    indices = range(split.count) if indices is None else indices
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in map(int, indices):
        number = split.image_id(index)
        height, width = split.image_size(index)
        images.append({"id": number, "height": height, "width": width})
        try:
            items = split.truth(index)
        except Unreadable as error:
            raise InputError(
                "An annotation cannot be used: mend or remove it, or pass --on-corrupt "
                f"skip to score without its mask. Received: {error}"
            ) from error
        # From 1: pycocotools takes 0 for no object at all.
        for item in items:
            identity = {"id": len(annotations) + 1, "image_id": number}
            annotations.append({**item, **identity})
    categories = [
        {"id": number, "name": name}
        for number, name in zip(source.category_ids, source.class_names)
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def average_precision(
    truth: dict[str, Any], results: Iterable[dict[str, Any]], *, masks: bool = False
) -> dict[str, float]:
    """Compute COCO's scores of boxes, and of masks.

    Args:
        truth: Annotations, as `truth` gives them. An object without a mask counts for
            boxes; masks that are found there are neither right nor wrong.
        results: Entries of a file of results.
        masks: Whether masks are scored too.

    Returns:
        Scores `{"AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR"}` in
        0…1, and the same with `mask_` before it; without those of which there is no
        object.

    Raises:
        InputError: If nothing is to be found, no object has a mask where masks are
            scored, or pycocotools is not installed.
    """
    library()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not any(not item["iscrowd"] for item in truth["annotations"]):
        raise InputError("There is no object in the pictures: nothing was scored.")
    if masks and all(item["segmentation"] is None for item in truth["annotations"]):
        raise InputError(
            "Masks are scored against masks, and no object has one: score a detector "
            "of boxes. "
            f"Received: {len(truth['annotations']):,} objects without masks"
        )
    scores = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ("bbox", "segm")[: 1 + masks]:
            reference = _indexed(COCO(), truth if kind == "bbox" else _masked(truth))
            found = _indexed(COCO(), {**truth, "annotations": _areas(results, kind)})
            evaluation = COCOeval(reference, found, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            prefix = "mask_" if kind == "segm" else ""
            for name, place in _PLACES.items():
                if evaluation.stats[place] >= 0:
                    scores[prefix + name] = float(evaluation.stats[place])
    return scores


def _indexed(coco, content):
    coco.dataset = content
    coco.createIndex()
    return coco


def _masked(truth):
    """Return annotations in which objects without a mask are crowds over their box."""

    def masked(item: dict[str, Any]) -> dict[str, Any]:
        if item["segmentation"] is not None:
            return item
        x, y, width, height = item["bbox"]
        right, below = x + width, y + height
        outline = [[x, y, right, y, right, below, x, below]]
        return {**item, "segmentation": outline, "iscrowd": 1}

    return {**truth, "annotations": [masked(item) for item in truth["annotations"]]}


def _areas(results, kind):
    """Return results with numbers and with the areas by which COCO sorts them."""
    numbered = []
    for number, item in enumerate(results, 1):
        if kind == "bbox":
            area = item["bbox"][2] * item["bbox"][3]
        else:
            area = float(library().area(item["segmentation"]))
        numbered.append({**item, "id": number, "area": area, "iscrowd": 0})
    return numbered


def confusion(
    truth: np.ndarray, predicted: np.ndarray, classes: int, void: int = VOID
) -> np.ndarray:
    """Count how often each class was taken for each.

    Args:
        truth: Integers of any shape, 0…classes - 1, or `void`.
        predicted: Integers of the same shape, 0…classes - 1.
        classes: Number of classes.
        void: Label of what does not count.

    Returns:
        Matrix `(classes, classes)`, int64, rows the truth.
    """
    truth, predicted = np.ravel(truth), np.ravel(predicted)
    counted = truth != void
    pairs = truth[counted].astype("int64") * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(matrix: Any) -> dict[str, Any]:
    """Compute the scores of class maps.

    Args:
        matrix: Matrix `(classes, classes)`, the sum of `confusion` over pictures.

    Returns:
        Scores `{"mIoU", "accuracy", "mean_accuracy", "IoU"}` in 0…1: the mean over the
        classes that are seen or predicted, the share of pixels that are right, its mean
        over the classes that are seen, and one number for each class, `None` where it
        is neither seen nor predicted.

    Raises:
        InputError: If no pixel has a class.
    """
    matrix = np.asarray(matrix, float)
    right = np.diagonal(matrix)
    seen, predicted = matrix.sum(1), matrix.sum(0)
    if not seen.sum():
        raise InputError("No pixel of the pictures has a class: nothing was scored.")
    union = seen + predicted - right
    shares = right[union > 0] / union[union > 0]
    each = np.full(len(matrix), np.nan)
    each[union > 0] = shares
    return {
        "mIoU": float(shares.mean()),
        "accuracy": float(right.sum() / seen.sum()),
        "mean_accuracy": float(np.mean(right[seen > 0] / seen[seen > 0])),
        "IoU": [None if np.isnan(share) else float(share) for share in each],
    }
