"""Reading pictures and class maps with Pillow."""

import numpy as np
from PIL import Image, UnidentifiedImageError

from kmlp.data.dense.source import Unreadable


def read_image(path):
    """`(H, W, 3)` uint8 of a picture.

    Raises:
        Unreadable: it is damaged.
        OSError: it is gone.
    """
    return _opened(path, lambda image: np.asarray(image.convert("RGB")))


def read_map(path):
    """`(H, W)` integers of a class map.

    Raises:
        Unreadable: it is damaged, or in colour.
        OSError: it is gone.
    """
    # The indices of a map with a palette, not its colours.
    found = _opened(path, np.asarray)
    if found.ndim != 2:
        raise Unreadable(path, "a picture in colour, not a map of class numbers")
    return found


def image_size(path):
    """Height and width by the header.

    Raises:
        Unreadable: it is damaged.
        OSError: it is gone.
    """
    return _opened(path, lambda image: (image.height, image.width))


def _opened(path, function):
    with open(path, "rb") as file:
        try:
            with Image.open(file) as image:
                return function(image)
        except UnidentifiedImageError as error:
            empty = file.seek(0, 2) == 0
            why = "empty" if empty else "no picture that Pillow knows"
            raise Unreadable(path, why) from error
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:
            # Pillow's many ways of saying that a file is cut short or wrong.
            raise Unreadable(path, str(error)) from error
