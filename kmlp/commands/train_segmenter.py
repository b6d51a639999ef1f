"""Trains a segmenter over any hierarchical backbone, exports it and scores it.

    python training/train_segmenter.py
    python training/train_segmenter.py --head upernet
    python training/train_segmenter.py --arch repmlpnet_d256 --data cityscapes:DIR

The first trains on drawn scenes in a few minutes on a laptop and ends with the mean
IoU; with --data ade20k:DIR or cityscapes:DIR the recipe of the paper is used. A run
that was stopped, however, goes on with the same command. The result lies in
saved_models/HEAD_ARCH/VERSION: a SavedModel and model.tflite of class scores for every
pixel, trained.keras, pictures of predictions, history.csv, recipe.json and report.json.
"""

from kmlp.commands import train_dense

HEADS = ("semantic_fpn", "upernet")
DATA = ("ade20k", "cityscapes")


def main(argv=None):
    """Runs the job; returns the process's exit code."""
    return train_dense.main(
        "segmentation", "train_segmenter.py", __doc__, HEADS, DATA, argv
    )
