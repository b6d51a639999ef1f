"""What the pictures share: sizes, fonts, edges."""

import math

import numpy as np
from PIL import Image, ImageFont

# Small pictures are enlarged to at least this many pixels to the shorter side.
READABLE = 384
DARK, LIGHT = (20, 20, 20), (255, 255, 255)


def enlargement(shape):
    return max(1, math.ceil(READABLE / min(shape[:2])))


def enlarged(pixels, scale):
    picture = Image.fromarray(pixels)
    size = [side * scale for side in picture.size]
    return picture.resize(size, Image.Resampling.NEAREST) if scale > 1 else picture


def borders(classes):
    """Where the next pixel to the right or below is of another class."""
    found = np.zeros(classes.shape, bool)
    found[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    found[:-1] |= classes[:-1] != classes[1:]
    return found


def font_size(size):
    return max(14, round(min(size) / 32))


def font(size):
    return ImageFont.load_default(size)
