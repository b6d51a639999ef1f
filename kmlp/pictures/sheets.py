"""Pictures side by side."""

from PIL import Image, ImageDraw

from kmlp.pictures.parts import DARK, LIGHT, enlarged, enlargement, font

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
