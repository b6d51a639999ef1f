"""Detection and instance segmentation over any hierarchical backbone."""

from kmlp.detection.cascade import CascadeMaskRCNN
from kmlp.detection.mask_rcnn import MaskRCNN
from kmlp.detection.retinanet import RetinaNet

__all__ = ["CascadeMaskRCNN", "MaskRCNN", "RetinaNet"]
