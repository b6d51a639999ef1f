"""Objects over a picture."""

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

OPACITY = 0.45


def draw_detections(image, detections, class_names, *, palette=None, threshold=0.0):
    """Boxes, names with scores, and masks over a picture.

    Args:
        image: `(H, W, 3)` uint8.
        detections: in pixels of the picture: `boxes` `(K, 4)`, `classes` `(K,)`, and
            perhaps `scores` `(K,)` and `masks` `(K, H, W)` bool. Class -1 is none.
        class_names: in the order of the classes.
        palette: `(classes, 3)` uint8; `None`: ours.
        threshold: detections of lower score are not drawn.

    Returns:
        A `PIL.Image`, larger than the picture where that is small.
    """
    palette = default_palette(len(class_names)) if palette is None else palette
    classes = np.asarray(detections["classes"])
    scores = np.asarray(detections.get("scores", np.ones(len(classes))), float)
    drawn = np.flatnonzero((classes >= 0) & (scores >= threshold))
    drawn = drawn[np.argsort(scores[drawn], kind="stable")]  # the best on top
    scale = enlargement(image.shape)
    shown = np.array(image)
    if "masks" in detections:
        for k in drawn:
            inside = np.asarray(detections["masks"][k], bool)
            mixed = shown[inside] * (1 - OPACITY) + palette[classes[k]] * OPACITY
            shown[inside] = mixed.astype("uint8")
    picture = enlarged(shown, scale)
    if "masks" in detections:
        for k in drawn:
            mask = enlarged(np.asarray(detections["masks"][k], "uint8") * 255, scale)
            _outline(picture, mask, palette[classes[k]])
    draw, unit = ImageDraw.Draw(picture), _unit(picture)
    corners = [np.asarray(detections["boxes"][k], float) * scale for k in drawn]
    for k, corner in zip(drawn, corners):
        colour = tuple(palette[classes[k]].tolist())
        draw.rectangle(_inside(corner, picture.size), outline=DARK, width=unit + 2)
        inner = _inside(corner + np.array([1, 1, -1, -1]), picture.size)
        draw.rectangle(inner, outline=colour, width=unit)
    taken = []
    for k, corner in zip(drawn[::-1], corners[::-1]):
        text = str(class_names[classes[k]])
        if "scores" in detections:
            text += f" {scores[k]:.2f}"
        _label(draw, picture.size, corner, text, palette[classes[k]], taken)
    return picture


def _unit(picture):
    """Width of lines."""
    return max(2, round(min(picture.size) / 300))


def _inside(corner, size):
    """A box in whole pixels of a picture, its corners in order."""
    x1, y1, x2, y2 = np.round(corner).astype(int).tolist()
    x1, y1 = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
    return x1, y1, min(max(x2 - 1, x1), size[0] - 1), min(max(y2 - 1, y1), size[1] - 1)


def _outline(picture, mask, colour):
    edge = borders(np.asarray(mask))
    thick = edge.copy()
    thick[1:] |= edge[:-1]
    thick[:, 1:] |= edge[:, :-1]
    stencil = Image.fromarray(thick.astype("uint8") * 255)
    picture.paste(tuple(np.asarray(colour).tolist()), (0, 0), stencil)


def _label(draw, size, corner, text, colour, taken):
    """A name at its box: above it or else within, where no other name stands."""
    letters = font(font_size(size))
    width = math.ceil(letters.getlength(text)) + 6
    height = font_size(size) + 5
    left = int(min(max(corner[0], 0), max(0, size[0] - width)))
    places = [corner[1] - height, corner[1], corner[3] - height, corner[3]]
    places += [corner[1] + height * n for n in range(1, 4)]
    places = [int(min(max(top, 0), size[1] - height)) for top in places]
    boxes = [(left, top, left + width, top + height) for top in places]
    free = [box for box in boxes if not any(_meet(box, other) for other in taken)]
    box = (free or boxes)[0]
    taken.append(box)
    draw.rectangle(box, fill=tuple(np.asarray(colour).tolist()), outline=DARK)
    draw.text((box[0] + 3, box[1] + 1), text, _readable_on(colour), letters)


def _meet(one, other):
    return (
        one[0] < other[2]
        and other[0] < one[2]
        and one[1] < other[3]
        and other[1] < one[3]
    )


def _readable_on(colour):
    brightness = np.dot(np.asarray(colour, float), (0.299, 0.587, 0.114))
    return DARK if brightness > 110 else LIGHT
