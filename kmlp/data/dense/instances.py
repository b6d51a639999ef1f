"""Masks of objects as COCO writes them: polygons and run lengths."""

import numpy as np

from kmlp.errors import InputError


def library():
    """`pycocotools.mask`.

    Raises:
        InputError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            "Masks of objects and COCO's scores need the extra 'detection': "
            "pip install pycocotools. Received: no module pycocotools"
        ) from error
    return mask


def encoded(mask):
    """A mask as compressed run lengths, whose counts are text as in JSON.

    Args:
        mask: `(H, W)`, true or 1 inside.
    """
    found = library().encode(np.asfortranarray(mask, np.uint8))
    return {"size": found["size"], "counts": found["counts"].decode("ascii")}


def drawn(segmentation, size):
    """The mask of one object.

    Args:
        segmentation: polygons, a list of x, y, x, y, …; or run lengths, `{"size": (H,
            W), "counts": …}`, the counts compressed or plain.
        size: height and width of the image.

    Returns:
        `(H, W)` uint8 of 0 and 1.
    """
    mask, (height, width) = library(), size
    if not isinstance(segmentation, dict):
        return mask.decode(mask.merge(mask.frPyObjects(segmentation, height, width)))
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return mask.decode({"size": size, "counts": counts.encode("ascii")})
    return mask.decode(mask.frPyObjects(segmentation, height, width))
