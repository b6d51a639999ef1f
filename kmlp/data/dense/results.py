"""Masks of objects as COCO writes them: polygons and run lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kmlp.errors import InputError, RunError


def library() -> Any:
    """Import `pycocotools.mask`.

    Raises:
        InputError: If it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            "Masks of objects and COCO's scores need the extra 'detection': "
            "pip install pycocotools. Received: no module pycocotools"
        ) from error
    return mask


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask as run lengths, compressed as text where pycocotools is installed.

    Args:
        mask: Mask `(H, W)`, true or 1 inside.
    """
    try:
        found = library().encode(np.asfortranarray(mask, np.uint8))
        return {"size": found["size"], "counts": found["counts"].decode("ascii")}
    except InputError:
        flat = np.asarray(mask, bool).ravel(order="F")
        ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff([0, *ends, flat.size]).tolist()
        # The first run is of what lies outside.
        counts = [0] * bool(flat[:1].any()) + runs
        return {"size": list(mask.shape), "counts": counts}


def drawn(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Draw the mask of one object.

    Args:
        segmentation: Polygons, a list of x, y, x, y, …; or run lengths, `{"size": (H,
            W), "counts": …}`, the counts compressed or plain.
        size: Height and width of the image.

    Returns:
        Mask `(H, W)`, uint8 of 0 and 1.
    """
    mask, (height, width) = library(), size
    if not isinstance(segmentation, dict):
        return mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width)))
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return mask.decode({"size": size, "counts": counts.encode("ascii")})
    return mask.decode(mask.frPyObjects(segmentation, height, width))


THRESHOLD = 0.5
_PARTS = {"scores", "classes", "masks"}


def to_picture(
    detections: Mapping[str, Any], shape: Sequence[int], size: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return the detections of a picture in its own pixels, without empty places.

    Args:
        detections: Detections `{"boxes": (D, 4), "scores": (D,), "classes": (D,)}` and
            perhaps `"masks": (D, S, S)`, in the pixels of the network's input; class -1
            is an empty place. Other entries are ignored.
        shape: Height and width that the picture had there, without padding.
        size: Height and width of the picture itself.

    Returns:
        The same of K detections, boxes cut at the picture's edges, and as they were in
        `whole_boxes`, over which `paste` lays masks. What lies outside altogether is
        left out.

    Raises:
        RunError: If a box or score is not finite.
    """
    scale = np.tile(np.array(size[::-1], float) / shape[::-1], 2)
    boxes = np.asarray(detections["boxes"], float) * scale
    boxes = np.clip(boxes, 0, np.tile(size[::-1], 2))
    there = np.asarray(detections["classes"]) >= 0
    figures = np.column_stack([boxes, detections["scores"]])[there]
    if not np.isfinite(figures).all():
        raise RunError(
            "The weights give detections that are not finite: they are damaged, or "
            "trained to divergence. "
            f"Received: {figures[~np.isfinite(figures).all(1)][0].tolist()}",
        )
    there &= np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    kept = {
        name: np.asarray(detections[name])[there] for name in _PARTS & {*detections}
    }
    # Masks belong to whole boxes, not to what the picture's edges leave of them.
    whole = np.asarray(detections["boxes"], float)[there] * scale
    return {**kept, "boxes": boxes[there], "whole_boxes": whole}


def paste(mask: np.ndarray, box: Sequence[float], size: Sequence[int]) -> np.ndarray:
    """Lay a mask over its box, in the picture.

    Bilinear at the pixels' centres, zero beyond the mask, cut at a half, as the
    reference framework pastes.

    Args:
        mask: Mask `(S, S)` of probabilities.
        box: Corners x1, y1, x2, y2 in pixels of the picture.
        size: Height and width of the picture.

    Returns:
        Mask `(H, W)`, uint8, 1 inside.
    """
    mask = np.asarray(mask, float)
    ranges, weights = [], []
    for low, high, length, cells in zip(box[1::-1], box[:1:-1], size, mask.shape):
        # No pixel centre beyond the box comes to a half.
        first = int(np.clip(np.floor(low), 0, length))
        last = int(np.clip(np.ceil(high), first, length))
        ranges.append(slice(first, last))
        centres = np.arange(first, last) + 0.5
        places = (centres - low) / max(high - low, 1e-9) * cells - 0.5
        distance = np.abs(places[:, None] - np.arange(cells))
        weights.append(np.maximum(1 - distance, 0))
    whole = np.zeros(size, np.uint8, order="F")  # as run lengths are counted
    # (h, S) (S, S) (S, w) -> (h, w)
    whole[ranges[0], ranges[1]] = weights[0] @ mask @ weights[1].T >= THRESHOLD
    return whole


def coco_results(
    detections: Mapping[str, Any],
    *,
    image_id: Any,
    size: Sequence[int],
    category_ids: Sequence[int],
    shape: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of one picture as entries of a file of results.

    Args:
        detections: Detections, as `to_picture` takes them.
        image_id: Name or number of the picture.
        size: Height and width of the picture.
        category_ids: Numbers by which the file calls the classes.
        shape: Height and width that it had as the network's input, without padding;
            `None`: its own.

    Returns:
        A list of dicts, with a `"segmentation"` where there are masks.
    """
    found = to_picture(detections, size if shape is None else shape, size)
    return coco_entries(found, image_id, size, category_ids)


def coco_entries(
    found: dict[str, np.ndarray],
    image_id: Any,
    size: Sequence[int],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the detections of one picture as entries of a file of results.

    Args:
        found: Detections in the picture's pixels, from `to_picture`.
        image_id, size, category_ids: As in `coco_results`.
    """
    entries = []
    for k, (x1, y1, x2, y2) in enumerate(found["boxes"].tolist()):
        entry = {
            "image_id": image_id,
            "category_id": int(category_ids[int(found["classes"][k])]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(found["scores"][k]),
        }
        if "masks" in found:
            pasted = paste(found["masks"][k], found["whole_boxes"][k], size)
            entry["segmentation"] = encoded(pasted)
        entries.append(entry)
    return entries
