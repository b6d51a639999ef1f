"""Semantic segmentation: a class for every pixel."""

from kmlp.segmentation.inference import segment
from kmlp.segmentation.segmenter import VOID
from kmlp.segmentation.semantic_fpn import SemanticFPN
from kmlp.segmentation.upernet import UperNet

__all__ = ["VOID", "SemanticFPN", "UperNet", "segment"]
