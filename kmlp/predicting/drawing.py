"""Predictions over pictures, for people to look at.

Colours are told apart with any kind of colour vision; names stand beside them.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kmlp.data.dense.source import VOID
from kmlp.data.dense.source import palette as default_palette

# Small pictures are enlarged to at least this many pixels to the shorter side.
READABLE = 384
DARK, LIGHT = (20, 20, 20), (255, 255, 255)


def _enlargement(shape):
    return max(1, math.ceil(READABLE / min(shape[:2])))


def _enlarged(pixels, scale):
    picture = Image.fromarray(pixels)
    size = [side * scale for side in picture.size]
    return picture.resize(size, Image.Resampling.NEAREST) if scale > 1 else picture


def _borders(classes):
    """Return where the next pixel to the right or below is of another class."""
    found = np.zeros(classes.shape, bool)
    found[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    found[:-1] |= classes[:-1] != classes[1:]
    return found


def _font_size(size):
    return max(14, round(min(size) / 32))


MAP_OPACITY = 0.6


def draw_classes(
    image: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
    *,
    palette: np.ndarray | None = None,
    legend: bool = True,
) -> Image.Image:
    """Draw a class map over a picture, and below it which colour is which class.

    Args:
        image: Image `(H, W, 3)`, uint8.
        classes: Class numbers `(H, W)`; what is `VOID` stays as it is.
        class_names: Names in the order of the classes.
        palette: Colours `(classes, 3)`, uint8; `None`: ours, class 0 dark where it is
            named `"background"`.
        legend: Whether classes are named, the largest first.

    Returns:
        A `PIL.Image`, larger than the picture where that is small.
    """
    if palette is None:
        palette = default_palette(len(class_names), class_names[0] == "background")
    classes = np.asarray(classes)
    known = classes != VOID
    shown = np.array(image)
    shown[known] = _mixed(image[known], palette[classes[known]], MAP_OPACITY)
    scale = _enlargement(image.shape)
    large = np.kron(classes, np.ones((scale, scale), classes.dtype))
    pixels = np.array(_enlarged(shown, scale))
    pixels[_borders(large)] = LIGHT
    picture = Image.fromarray(pixels)
    if not legend:
        return picture
    numbers, counts = np.unique(classes[known], return_counts=True)
    order = numbers[np.argsort(-counts, kind="stable")]
    entries = [(str(class_names[n]), tuple(palette[n].tolist())) for n in order]
    named = _legend(entries, picture.size[0], _font_size(picture.size))
    stacked = Image.new("RGB", (picture.size[0], picture.size[1] + named.size[1]))
    stacked.paste(picture, (0, 0))
    stacked.paste(named, (0, picture.size[1]))
    return stacked


def _mixed(pixels, colours, opacity):
    return (pixels * (1 - opacity) + colours * opacity).astype("uint8")


def _legend(entries, width, size):
    """Draw names beside their colours, in as many lines as they take."""
    letters = ImageFont.load_default(size)
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
        draw.rectangle((x, y + 2, x + size, y + 2 + size), fill=colour, outline=DARK)
        draw.text((x + size + 6, y), text, DARK, letters)
    return picture


MASK_OPACITY = 0.45


def draw_detections(
    image: np.ndarray,
    detections: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    *,
    palette: np.ndarray | None = None,
) -> Image.Image:
    """Draw boxes, names with scores, and masks over a picture.

    Args:
        image: Image `(H, W, 3)`, uint8.
        detections: In pixels of the picture: `boxes` `(K, 4)`, `classes` `(K,)`, and
            perhaps `scores` `(K,)` and `masks` `(K, H, W)` bool. Class -1 is none.
        class_names: Names in the order of the classes.
        palette: Colours `(classes, 3)`, uint8; `None`: ours.

    Returns:
        A `PIL.Image`, larger than the picture where that is small.
    """
    palette = default_palette(len(class_names)) if palette is None else palette
    classes = np.asarray(detections["classes"])
    scores = np.asarray(detections.get("scores", np.ones(len(classes))), float)
    drawn = np.flatnonzero(classes >= 0)
    drawn = drawn[np.argsort(scores[drawn], kind="stable")]  # the best on top
    colours = {k: tuple(palette[classes[k]].tolist()) for k in drawn}
    masks = {k: detections["masks"][k] for k in drawn if "masks" in detections}
    scale = _enlargement(image.shape)
    shown = np.array(image)
    for k, mask in masks.items():
        inside = np.asarray(mask, bool)
        shown[inside] = _mixed(shown[inside], palette[classes[k]], MASK_OPACITY)
    picture = _enlarged(shown, scale)
    for k, mask in masks.items():
        mask = _enlarged(np.asarray(mask, "uint8") * 255, scale)
        _outline(picture, mask, colours[k])
    draw, unit = ImageDraw.Draw(picture), max(2, round(min(picture.size) / 300))
    corners = {k: np.asarray(detections["boxes"][k], float) * scale for k in drawn}
    for k, corner in corners.items():
        draw.rectangle(_inside(corner, picture.size), outline=DARK, width=unit + 2)
        inner = _inside(corner + np.array([1, 1, -1, -1]), picture.size)
        draw.rectangle(inner, outline=colours[k], width=unit)
    taken: list[tuple[int, ...]] = []
    for k in drawn[::-1]:
        text = str(class_names[classes[k]])
        if "scores" in detections:
            text += f" {scores[k]:.2f}"
        _label(draw, picture.size, corners[k], text, colours[k], taken)
    return picture


def _inside(corner, size):
    """Return a box in whole pixels of a picture, its corners in order."""
    x1, y1, x2, y2 = np.round(corner).astype(int).tolist()
    x1, y1 = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
    return x1, y1, min(max(x2 - 1, x1), size[0] - 1), min(max(y2 - 1, y1), size[1] - 1)


def _outline(picture, mask, colour):
    edge = _borders(np.asarray(mask))
    thick = edge.copy()
    thick[1:] |= edge[:-1]
    thick[:, 1:] |= edge[:, :-1]
    stencil = Image.fromarray(thick.astype("uint8") * 255)
    picture.paste(colour, (0, 0), stencil)


def _label(draw, size, corner, text, colour, taken):
    """Write a name above its box or else within, where no other name stands."""
    letters = ImageFont.load_default(_font_size(size))
    width = math.ceil(letters.getlength(text)) + 6
    height = _font_size(size) + 5
    left = int(min(max(corner[0], 0), max(0, size[0] - width)))
    places = [corner[1] - height, corner[1], corner[3] - height, corner[3]]
    places += [corner[1] + height * n for n in range(1, 4)]
    places = [int(min(max(top, 0), size[1] - height)) for top in places]
    boxes = [(left, top, left + width, top + height) for top in places]
    free = [box for box in boxes if not any(_meet(box, other) for other in taken)]
    box = (free or boxes)[0]
    taken.append(box)
    draw.rectangle(box, fill=colour, outline=DARK)
    draw.text((box[0] + 3, box[1] + 1), text, _readable_on(colour), letters)


def _meet(one, other):
    return all(one[k] < other[k + 2] and other[k] < one[k + 2] for k in (0, 1))


def _readable_on(colour):
    brightness = np.dot(np.asarray(colour, float), (0.299, 0.587, 0.114))
    return DARK if brightness > 110 else LIGHT


_GAP = 12
_TITLE = 18


def contact_sheet(
    rows: Sequence[Sequence[Image.Image | np.ndarray]],
    titles: Sequence[str],
    *,
    width: int = 420,
) -> Image.Image:
    """Lay pictures beside each other, such as image, truth and prediction.

    Args:
        rows: Rows of `PIL.Image` or `(H, W, 3)` uint8, as long as `titles`.
        titles: Titles of the columns.
        width: Width of each picture.
    """
    scaled = [[_of_width(picture, width) for picture in row] for row in rows]
    heights = [max(picture.size[1] for picture in row) for row in scaled]
    tops = np.cumsum([_TITLE + 2 * _GAP, *(height + _GAP for height in heights)])
    lefts = [_GAP + column * (width + _GAP) for column in range(len(titles) + 1)]
    sheet = Image.new("RGB", (lefts[-1], int(tops[-1])), LIGHT)
    draw = ImageDraw.Draw(sheet)
    for left, title in zip(lefts, titles):
        draw.text((left, _GAP - 2), title, DARK, ImageFont.load_default(_TITLE))
    for top, row in zip(tops.tolist(), scaled):
        for left, picture in zip(lefts, row):
            sheet.paste(picture, (left, top))
    return sheet


def _of_width(picture, width):
    if not isinstance(picture, Image.Image):
        picture = _enlarged(picture, _enlargement(picture.shape))
    height = max(1, round(picture.size[1] * width / picture.size[0]))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
