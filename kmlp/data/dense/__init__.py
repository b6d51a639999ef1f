"""Data sets of objects and of class maps: pictures with boxes, masks, classes.

NumPy and Pillow only; masks of COCO need `pycocotools` (the extra `detection`).
"""

from pathlib import Path

from kmlp.data.dense.source import VOID, DenseSource, DenseSplit, Objects, Unreadable
from kmlp.data.images import disk_errors_reported
from kmlp.errors import InputError

__all__ = [
    "VOID",
    "DenseSource",
    "DenseSplit",
    "Objects",
    "Unreadable",
    "kind_and_folder",
    "open_dense",
]

TASKS = ("detection", "segmentation")
# What each task takes, besides the scenes.
KINDS = {"detection": ("coco",), "segmentation": ("ade20k", "cityscapes")}


def open_dense(spec, task, *, on_corrupt="stop", **scene_arguments):
    """A data set to train on: listed, not read.

    Args:
        spec: `"scenes"` or `None`: the embedded scenes; `coco:DIR` of detection;
            `ade20k:DIR` or `cityscapes:DIR` of segmentation.
        task: `"detection"` or `"segmentation"`.
        on_corrupt: `"stop"` or `"skip"` where pictures cannot be read.
        **scene_arguments: of `scenes`.

    Returns:
        A `DenseSource`.

    Raises:
        InputError: no such data, or not in the layout that it should have.
        InputError: no such task.
    """
    if task not in TASKS:
        raise InputError(f"task must be one of {TASKS}. Received: {task!r}")
    if spec in (None, "scenes"):
        from kmlp.data.dense.scenes import scenes

        return scenes(task, **scene_arguments)
    kind, folder = kind_and_folder(spec, task)
    with disk_errors_reported():
        if kind == "coco":
            from kmlp.data.dense.coco import coco

            return coco(folder, on_corrupt)
        from kmlp.data.dense import class_maps

        return getattr(class_maps, kind)(folder, on_corrupt)


def kind_and_folder(spec, task):
    """What `--data` names besides the scenes: the kind of data and where they lie.

    Raises:
        InputError: nothing such for the task.
    """
    kind, colon, folder = str(spec).partition(":")
    if not colon or kind not in KINDS[task] or not folder:
        allowed = " or ".join(["scenes", *(f"{name}:DIR" for name in KINDS[task])])
        raise InputError(f"--data takes {allowed} for {task}. Received: {str(spec)!r}")
    return kind, Path(folder).expanduser()
