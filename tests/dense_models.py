"""Small detectors and segmenters that find something, with their preprocessing."""

import functools

import keras
import numpy as np
from dense_backbones import backbone, images, randomised

from kmlp.detection import CascadeMaskRCNN, MaskRCNN, RetinaNet
from kmlp.preprocessing import DensePreprocessing
from kmlp.segmentation import SemanticFPN, UperNet

CANVAS = (64, 96)
NAMES = ("ant", "bee", "cat")
_TWO_STAGES = {
    "fpn_filters": 16,
    "anchor_scale": 4,
    "candidates": 20,
    "proposals": 10,
    "fc_units": 16,
    "mask_convs": 1,
    "mask_filters": 8,
    "score_threshold": 0.05,
    "max_detections": 8,
}
DETECTORS = {
    "retinanet": (
        RetinaNet,
        {"fpn_filters": 16, "head_convs": 1, "candidates": 20}
        | {"score_threshold": 0.001, "max_detections": 8},
    ),
    "mask_rcnn": (MaskRCNN, _TWO_STAGES),
    "cascade_mask_rcnn": (CascadeMaskRCNN, _TWO_STAGES),
}
SEGMENTERS = {
    "semantic_fpn": (SemanticFPN, {"fpn_filters": 16, "filters": 8}),
    "upernet": (UperNet, {"filters": 12, "auxiliary_filters": 6}),
}


def known(task, **changes):
    values = {
        "task": task,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.25, 0.3),
        "canvas": CANVAS,
        "class_names": NAMES,
        "category_ids": (3, 5, 90) if task == "detection" else None,
    }
    return DensePreprocessing(**{**values, **changes})


@functools.cache
def dense_model(head, family="convmlp"):
    """The same in every run; kernels are large enough for answers that differ."""
    keras.utils.set_random_seed(0)
    task = "detection" if head in DETECTORS else "segmentation"
    cls, arguments = (DETECTORS | SEGMENTERS)[head]
    model = cls(backbone(family, (*CANVAS, 3)), len(NAMES), **arguments)
    draws = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            fan_in = np.prod(weight.shape[:-1])
            codes = ("box_head/predict", "boxes/conv", "boxes/kernel")
            small = any(name in weight.path for name in codes)
            size = (1.5 / fan_in) ** 0.5 * (0.05 if small else 1)
            weight.assign(draws.normal(0, size, weight.shape))
    randomised(model)
    model.preprocessing = known(task)
    if task == "segmentation":  # no class is the likeliest everywhere
        logits = keras.ops.convert_to_numpy(
            model(images(size=(*CANVAS, 3)), training=False)
        )
        paths = {w.path: w for w in model.weights}
        bias = paths["classifier/conv/bias"]
        bias.assign_sub(logits.mean((0, 1, 2)))
    return model


def picture(height, width, seed=0):
    """`(H, W, 3)` uint8 with large and small structure."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(0, 200, (height // 12 + 1, width // 12 + 1, 3))
    rows, columns = np.arange(height) // 12, np.arange(width) // 12
    fine = draws.integers(0, 56, (height, width, 3))
    return (coarse[rows][:, columns] + fine).astype("uint8")
