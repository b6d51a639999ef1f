"""Random brightness, contrast, saturation and hue, as the reference framework's."""

import numpy as np
from PIL import Image

BRIGHTNESS = 32
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
# Of 180: OpenCV counts hues by two degrees.
HUE = 18
_HUES = 180


def distorted(image, generator):
    """A picture in other light: each change with a chance of one half.

    Contrast comes first or last, by chance too.

    Args:
        image: `(H, W, 3)` uint8.
        generator: `numpy.random.Generator`.

    Reference:
        mmsegmentation, `PhotoMetricDistortion`.
    """
    shift = generator.uniform(-BRIGHTNESS, BRIGHTNESS) * generator.integers(2)
    early = bool(generator.integers(2))
    contrast = _factor(generator, CONTRAST)
    saturation = _factor(generator, SATURATION)
    hue = int(generator.integers(-HUE, HUE)) * int(generator.integers(2))
    levels = _levels(shift=shift)
    if early:
        levels = _levels(contrast)[levels]
    picture = Image.fromarray(image).point(_table(levels, levels, levels))
    if saturation != 1 or hue:
        same = np.arange(256)
        turned = (same + round(hue * 256 / _HUES)) % 256
        picture = picture.convert("HSV")
        picture = picture.point(_table(turned, _levels(saturation), same))
        picture = picture.convert("RGB")
    if not early and contrast != 1:
        levels = _levels(contrast)
        picture = picture.point(_table(levels, levels, levels))
    return np.asarray(picture)


def _factor(generator, bounds):
    """A number between two, or 1, with even chances."""
    value = generator.uniform(*bounds)
    return value if generator.integers(2) else 1.0


def _levels(factor=1.0, shift=0.0):
    """What becomes of the 256 levels of a channel."""
    levels = np.arange(256) * factor + shift
    return np.clip(levels, 0, 255).astype(np.uint8)


def _table(*channels):
    return np.concatenate(channels).tolist()
