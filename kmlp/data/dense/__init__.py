"""Data sets of objects and of class maps: pictures with boxes, masks, classes.

NumPy and Pillow only; masks of COCO need `pycocotools` (the extra `detection`).
"""

from kmlp.data.dense.dense_sources import open_dense
from kmlp.data.dense.source import VOID, DenseSource, DenseSplit, Objects, Unreadable

__all__ = [
    "VOID",
    "DenseSource",
    "DenseSplit",
    "Objects",
    "Unreadable",
    "open_dense",
]
