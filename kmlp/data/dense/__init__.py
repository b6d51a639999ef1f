"""Data sets of objects and of class maps: pictures with boxes, masks, classes.

NumPy and Pillow only; masks of COCO need `pycocotools` (the extra `detection`).
"""

from pathlib import Path
from typing import Any

from kmlp.data.dense.source import VOID, DenseSource, DenseSplit, Objects
from kmlp.data.images import disk_errors_reported
from kmlp.data.pictures import Unreadable
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
# Data that each task takes besides the scenes.
KINDS = {"detection": ("coco",), "segmentation": ("ade20k", "cityscapes")}


def open_dense(
    spec: str | None,
    task: str,
    *,
    on_corrupt: str = "stop",
    exif: str = "ignore",
    **scene_arguments: Any,
) -> DenseSource:
    """Open a data set to train on: list it, without reading its pictures.

    Args:
        spec: Data: `"scenes"` or `None`: the embedded scenes; `coco:DIR` of detection;
            `ade20k:DIR` or `cityscapes:DIR` of segmentation.
        task: Task, `"detection"` or `"segmentation"`.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`.
        **scene_arguments: Arguments of `scenes`.

    Raises:
        InputError: If there is no such task or data, or not in the layout that it
            should have.
    """
    if task not in TASKS:
        raise InputError(f"task must be one of {TASKS}. Received: {task!r}")
    if spec in (None, "scenes"):
        from kmlp.data.dense.scenes import scenes

        return scenes(task, **scene_arguments)
    kind, folder = kind_and_folder(spec, task)
    with disk_errors_reported():
        upright = exif == "apply"
        if kind == "coco":
            from kmlp.data.dense.coco import coco

            return coco(folder, on_corrupt, upright)
        from kmlp.data.dense import class_maps

        return getattr(class_maps, kind)(folder, on_corrupt, upright)


def kind_and_folder(spec: object, task: str) -> tuple[str, Path]:
    """Return the kind of data that `--data` names besides the scenes, and its folder.

    Raises:
        InputError: If the task takes no such data.
    """
    kind, colon, folder = str(spec).partition(":")
    if not colon or kind not in KINDS[task] or not folder:
        allowed = " or ".join(["scenes", *(f"{name}:DIR" for name in KINDS[task])])
        raise InputError(f"--data takes {allowed} for {task}. Received: {str(spec)!r}")
    return kind, Path(folder).expanduser()
