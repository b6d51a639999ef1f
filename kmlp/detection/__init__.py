"""Detection and instance segmentation over any hierarchical backbone."""

from kmlp.detection.mask_rcnn import CascadeMaskRCNN, MaskRCNN
from kmlp.detection.retinanet import RetinaNet

__all__ = ["CascadeMaskRCNN", "MaskRCNN", "RetinaNet"]
