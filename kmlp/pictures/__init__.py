"""Predictions over pictures, for people to look at.

Colours are told apart with any kind of colour vision; names stand beside them.
"""

from kmlp.pictures.class_maps import draw_classes
from kmlp.pictures.detections import draw_detections
from kmlp.pictures.sheets import contact_sheet

__all__ = ["contact_sheet", "draw_classes", "draw_detections"]
