"""Predictions over pictures, for people to look at.

Colours are told apart with any kind of colour vision; names stand beside them.
"""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kmlp.data.dense.source import palette as default_palette

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


MAP_OPACITY = 0.6


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
    mixed = image * (1 - MAP_OPACITY) + colours * MAP_OPACITY
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


MASK_OPACITY = 0.45


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
            mixed = (
                shown[inside] * (1 - MASK_OPACITY) + palette[classes[k]] * MASK_OPACITY
            )
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


_GAP = 12
_TITLE = 18


def contact_sheet(rows, titles, *, width=420):
    """Pictures beside each other, such as image, truth and prediction.

    Args:
        rows: lists of `PIL.Image` or `(H, W, 3)` uint8, as long as `titles`.
        titles: of the columns.
        width: of each picture.

    Returns:
        A `PIL.Image`.
    """
    scaled = [[_of_width(picture, width) for picture in row] for row in rows]
    letters = font(_TITLE)
    top = _TITLE + 2 * _GAP
    heights = [max(picture.size[1] for picture in row) for row in scaled]
    size = (
        len(titles) * (width + _GAP) + _GAP,
        top + sum(heights) + _GAP * len(rows),
    )
    sheet = Image.new("RGB", size, LIGHT)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        place = (_GAP + column * (width + _GAP), _GAP - 2)
        draw.text(place, title, DARK, letters)
    y = top
    for row, height in zip(scaled, heights):
        for column, picture in enumerate(row):
            sheet.paste(picture, (_GAP + column * (width + _GAP), y))
        y += height + _GAP
    return sheet


def _of_width(picture, width):
    if not isinstance(picture, Image.Image):
        picture = enlarged(picture, enlargement(picture.shape))
    height = max(1, round(picture.size[1] * width / picture.size[0]))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
