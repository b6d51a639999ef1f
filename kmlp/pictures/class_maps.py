"""Class maps over a picture."""

import math

import numpy as np
from PIL import Image, ImageDraw

from kmlp.data.dense.palettes import palette as default_palette
from kmlp.pictures.parts import (
    DARK,
    LIGHT,
    borders,
    enlarged,
    enlargement,
    font,
    font_size,
)

OPACITY = 0.6


def draw_classes(image, classes, class_names, *, palette=None, legend=True, void=255):
    """A class map over a picture, and below it which colour is which class.

    Args:
        image: `(H, W, 3)` uint8.
        classes: `(H, W)` class numbers.
        class_names: in the order of the classes.
        palette: `(classes, 3)` uint8; `None`: ours, class 0 dark where it is named
            `"background"`.
        legend: whether classes are named; largest first.
        void: number of what has no class: it stays as it is.

    Returns:
        A `PIL.Image`, larger than the picture where that is small.
    """
    if palette is None:
        palette = default_palette(len(class_names), class_names[0] == "background")
    classes = np.asarray(classes)
    known = (classes != void)[..., None]
    colours = palette[np.where(known[..., 0], classes, 0)]
    mixed = image * (1 - OPACITY) + colours * OPACITY
    shown = np.where(known, mixed, image).astype("uint8")
    scale = enlargement(image.shape)
    large = np.kron(classes, np.ones((scale, scale), classes.dtype))
    pixels = np.array(enlarged(shown, scale))
    pixels[borders(large)] = LIGHT
    picture = Image.fromarray(pixels)
    if not legend:
        return picture
    numbers, counts = np.unique(classes[classes != void], return_counts=True)
    order = numbers[np.argsort(-counts, kind="stable")]
    entries = [(str(class_names[n]), palette[n]) for n in order]
    return _stacked(picture, _legend(entries, picture.size[0], font_size(picture.size)))


def _legend(entries, width, size):
    """Names beside their colours, in as many lines as they take."""
    letters = font(size)
    line = size + 8
    x, y, places = 6, 4, []
    for text, colour in entries:
        needed = size + 8 + math.ceil(letters.getlength(text)) + 16
        if x > 6 and x + needed > width:
            x, y = 6, y + line
        places.append((x, y, text, colour))
        x += needed
    picture = Image.new("RGB", (width, y + line), LIGHT)
    draw = ImageDraw.Draw(picture)
    for x, y, text, colour in places:
        colour = tuple(np.asarray(colour).tolist())
        draw.rectangle((x, y + 2, x + size, y + 2 + size), fill=colour, outline=DARK)
        draw.text((x + size + 6, y), text, DARK, letters)
    return picture


def _stacked(top, bottom):
    picture = Image.new("RGB", (top.size[0], top.size[1] + bottom.size[1]), LIGHT)
    picture.paste(top, (0, 0))
    picture.paste(bottom, (0, top.size[1]))
    return picture
