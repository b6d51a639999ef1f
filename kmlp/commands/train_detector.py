"""Trains a detector over any hierarchical backbone, exports it and scores it.

    python training/train_detector.py
    python training/train_detector.py --head retinanet
    python training/train_detector.py --arch msmlp_t --data coco:DIR --weights RUN

The first trains on drawn scenes in a few minutes on a laptop and ends with COCO's AP of
boxes and masks; with --data coco:DIR the recipe of the paper is used. A run that was
stopped, however, goes on with the same command. The result lies in
saved_models/HEAD_ARCH/VERSION: a SavedModel with boxes, scores, classes and masks as
its outputs, trained.keras, pictures of predictions, results.json as COCO takes it,
history.csv, recipe.json and report.json.
"""

from kmlp.commands import train_dense

HEADS = ("retinanet", "mask_rcnn", "cascade_mask_rcnn")
DATA = ("coco",)


def main(argv=None):
    """Runs the job; returns the process's exit code."""
    return train_dense.main(
        "detection", "train_detector.py", __doc__, HEADS, DATA, argv
    )
