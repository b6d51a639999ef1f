"""Semantic segmentation: a class for every pixel."""

from kmlp.segmentation.inference import segment
from kmlp.segmentation.segmenter import VOID, SemanticFPN
from kmlp.segmentation.upernet import UperNet

__all__ = ["VOID", "SemanticFPN", "UperNet", "segment"]
