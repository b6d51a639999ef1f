"""Colours of classes."""

import colorsys

import numpy as np

# Okabe and Ito: told apart by people with any kind of colour vision.
DISTINCT = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
BACKGROUND = (40, 40, 40)
# Of the angle between neighbours' hues; no two of many classes come close.
_TURN = 0.61803398875
_LEVELS = ((0.55, 1.0), (0.85, 0.95), (0.7, 0.75))


def palette(count, background=False):
    """`(count, 3)` uint8: Okabe and Ito's colours, then as many more as it takes.

    Args:
        count: number of classes.
        background: whether class 0 is what surrounds the others.
    """
    colours = [BACKGROUND] * background + list(DISTINCT)
    for number in range(max(0, count - len(colours))):
        saturation, value = _LEVELS[number % len(_LEVELS)]
        hue = number * _TURN % 1
        red_green_blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colours.append(tuple(round(255 * part) for part in red_green_blue))
    return np.array(colours[:count], "uint8").reshape(-1, 3)
