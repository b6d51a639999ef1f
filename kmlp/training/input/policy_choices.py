"""Operations of augmentation policies, as Pillow computes them, and their strengths.

Affine transforms come first, then those of pixel values, then the policies' choices.
A matrix `(a, b, c, d, e, f)`, float64, says where a pixel of the result comes from:
from `(a x + b y + c, d x + e y + f)`, counted in pixels from the left and the top
edge, a pixel's centre lying at half a pixel.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf


def affine(
    image: tf.Tensor, matrix: tf.Tensor, fill: Sequence[int], cubic: tf.Tensor
) -> tf.Tensor:
    """Sample an image where a matrix says.

    Differs from Pillow by one level where single precision rounds a value to the
    other side of an integer.

    Args:
        image: Image `(H, W, 3)`, uint8.
        matrix: Six numbers.
        fill: Colour of what comes from outside, three integers in 0…255.
        cubic: Whether to interpolate by 4 x 4 pixels (Pillow's "bicubic") and not by
            2 x 2, a scalar boolean.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    a, b, c, d, e, f = tf.unstack(tf.cast(matrix, tf.float32))
    x = tf.cast(tf.range(width), tf.float32) + 0.5
    y = tf.cast(tf.range(height), tf.float32)[:, None] + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < tf.cast(width, tf.float32))
    inside &= (y >= 0) & (y < tf.cast(height, tf.float32))
    pixels = tf.reshape(image, (-1, 3))

    def sampled(interpolate: Callable, offsets: Sequence[int]) -> tf.Tensor:
        left, across = _split(x - 0.5)
        top, down = _split(y - 0.5)

        def pixel(row: int, column: int) -> tf.Tensor:
            # Beyond the edge, the edge goes on.
            row = tf.clip_by_value(top + row, 0, height - 1)
            column = tf.clip_by_value(left + column, 0, width - 1)
            return tf.cast(tf.gather(pixels, row * width + column), tf.float32)

        lines = [
            interpolate([pixel(row, column) for column in offsets], across)
            for row in offsets
        ]
        return tf.cast(tf.clip_by_value(interpolate(lines, down), 0, 255), tf.uint8)

    result = tf.cond(
        cubic,
        lambda: sampled(_cubic, (-1, 0, 1, 2)),
        lambda: sampled(_linear, (0, 1)),
    )
    return tf.where(inside[..., None], result, tf.constant(fill, tf.uint8))


def rotation(degrees: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Rotate counter-clockwise, about the image's centre."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = width / 2, height / 2
    left = x - cos * x + sin * y
    top = y - sin * x - cos * y
    return _matrix(cos, -sin, left, sin, cos, top)


def shear_x(factor: tf.Tensor) -> tf.Tensor:
    """Move each row to the left, the further the lower it lies."""
    return _matrix(1, factor, 0, 0, 1, 0)


def shear_y(factor: tf.Tensor) -> tf.Tensor:
    """Move each column upwards, the further the more to the right it lies."""
    return _matrix(1, 0, 0, factor, 1, 0)


def translate_x(pixels: tf.Tensor) -> tf.Tensor:
    """Move to the left."""
    return _matrix(1, 0, pixels, 0, 1, 0)


def translate_y(pixels: tf.Tensor) -> tf.Tensor:
    """Move upwards."""
    return _matrix(1, 0, 0, 0, 1, pixels)


def _matrix(*values):
    return tf.stack([tf.cast(value, tf.float64) for value in values])


def _split(position):
    """Split positions into whole part, int32, and rest, with an axis for channels."""
    whole = tf.floor(position)
    return tf.cast(whole, tf.int32), (position - whole)[..., None]


def _linear(values, t):
    first, second = values
    return first + t * (second - first)


def _cubic(values, t):
    """Interpolate by Keys' kernel with a = -1."""
    p, q, r, s = values
    return q + t * (r - p + t * (2 * (p - q) + r - s + t * (q - p + s - r)))


# ITU-R 601 luma in 16-bit fixed point.
_LUMA = (19595, 38470, 7471)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretch every channel over 0…255."""
    low = tf.cast(_over_pixels(tf.reduce_min, image), tf.float64)
    high = tf.cast(_over_pixels(tf.reduce_max, image), tf.float64)
    scale = 255 / tf.maximum(high - low, 1)
    # Pillow computes `value * scale - low * scale` in double precision and truncates.
    # The maxima change nothing but keep the compiler from fusing product and sum,
    # which would leave out a rounding.
    stretched = tf.maximum(tf.cast(image, tf.float64) * scale, 0)
    stretched = _to_uint8(stretched - tf.maximum(low * scale, 0))
    return tf.where(high > low, stretched, image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Map every channel so that its histogram becomes flat."""
    channels = tf.range(3) * 256
    bins = tf.reshape(tf.cast(image, tf.int32) + channels, (-1,))
    counts = tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, 768)
    counts = tf.reshape(counts, (3, 256))
    values = tf.range(256)
    last = tf.reduce_max(tf.where(counts > 0, values, 0), axis=1)
    last = tf.gather(counts, last, batch_dims=1)
    step = (tf.reduce_sum(counts, axis=1) - last)[:, None] // 255
    below = step // 2 + tf.cumsum(counts, axis=1, exclusive=True)
    below = tf.where(step > 0, below, values)
    # `below // step`, at most 255, as the number of its multiples: the compiler
    # would repeat a division for every pixel, but a sum it makes once.
    multiples = tf.maximum(step, 1)[..., None] * tf.range(1, 256)
    table = tf.reduce_sum(tf.cast(below[..., None] >= multiples, tf.int32), axis=-1)
    table = tf.cast(tf.reshape(table, (-1,)), tf.uint8)
    return tf.gather(table, tf.cast(image, tf.int32) + channels)


def invert(image: tf.Tensor) -> tf.Tensor:
    """Return the negative."""
    return 255 - image


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest `bits` (int32, cut to 0…8) of every value."""
    mask = 256 - tf.bitwise.right_shift(256, tf.clip_by_value(bits, 0, 8))
    return tf.cast(tf.cast(image, tf.int32) & mask, tf.uint8)


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert what reaches `threshold` (int32)."""
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def solarize_add(image: tf.Tensor, addend: tf.Tensor) -> tf.Tensor:
    """Add `addend` (int32, not negative) to what lies below 128."""
    brighter = tf.cast(tf.minimum(tf.cast(image, tf.int32) + addend, 255), tf.uint8)
    return tf.where(image < 128, brighter, image)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend from the grey image (0) to the image (1) and beyond."""
    return _blend(_luma(image)[..., None], image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend from the image's mean grey (0) to the image (1) and beyond."""
    luma = tf.cast(_luma(image), tf.int64)
    count = tf.size(luma, out_type=tf.int64)
    return _blend((2 * tf.reduce_sum(luma) + count) // (2 * count), image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend from black (0) to the image (1) and beyond."""
    return _blend(0, image, factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend from the smoothed image (0) to the image (1) and beyond."""
    wide = tf.cast(image, tf.int32)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    inner = _blend((2 * total + 13) // 26, image[1:-1, 1:-1], factor)
    # Pillow's filters leave the border as it is.
    middle = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], middle, image[-1:]], axis=0)


def cutout(
    image: tf.Tensor,
    size: tf.Tensor,
    row: tf.Tensor,
    column: tf.Tensor,
    fill: Sequence[int],
) -> tf.Tensor:
    """Fill a square; what would lie outside of the image is cut off.

    Args:
        image: Image `(H, W, 3)`, uint8.
        size: Side, int32; the square reaches half of it, rounded down, to each side.
        row, column: Place of its centre among the rows and columns, in 0…1.
        fill: Colour, three integers in 0…255.
    """

    def covered(share: tf.Tensor, axis: int) -> tf.Tensor:
        side = tf.shape(image)[axis]
        position = tf.range(side)
        centre = tf.cast(share * tf.cast(side, share.dtype), tf.int32)
        return (position >= centre - size // 2) & (position < centre + size // 2)

    inside = covered(row, 0)[:, None] & covered(column, 1)
    return tf.where(inside[..., None], tf.constant(fill, tf.uint8), image)


def _blend(first, second, factor):
    """Return `first + factor * (second - first)` in single precision, truncated."""
    first, second = tf.cast(first, tf.float32), tf.cast(second, tf.float32)
    change = tf.cast(factor, tf.float32) * (second - first)
    # Clipped where nothing reaches: see `autocontrast` on product and sum.
    return _to_uint8(first + tf.clip_by_value(change, -(2.0**20), 2.0**20))


def _luma(image):
    """Return the grey image `(H, W)`, int32."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    total = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    return tf.bitwise.right_shift(total + 2**15, 16)


def _over_pixels(reduce, image):
    # Rows first: that loop runs over contiguous memory.
    return reduce(reduce(image, axis=0), axis=0)


def _to_uint8(values):
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)


CUTOUT_GREY = (125, 122, 113)


class Layer(NamedTuple):
    """The random draws for one operation on one image, as scalar tensors.

    Attributes:
        operation: Number of the policy's operation, int32; -1 leaves the image as it
            is.
        strength: Level as a share of the top level, float64.
        negative: Whether a signed operation goes the other way.
        cubic: Whether a geometric operation interpolates by 4 x 4 pixels.
        row, column: Place of a cutout, in 0…1, float64.
    """

    operation: tf.Tensor
    strength: tf.Tensor
    negative: tf.Tensor
    cubic: tf.Tensor
    row: tf.Tensor
    column: tf.Tensor

    def signed(self, largest: float) -> tf.Tensor:
        """Return `largest` or its negative, at full strength."""
        value = self.strength * largest
        return tf.where(self.negative, -value, value)

    def whole(self, largest: int) -> tf.Tensor:
        """Return `largest` at full strength, rounded down, int32."""
        return tf.cast(self.strength * largest, tf.int32)

    def factor(self) -> tf.Tensor:
        """Return 0.1…1.9; at half strength it changes nothing."""
        return self.strength * 1.8 + 0.1

    def increasing_factor(self) -> tf.Tensor:
        """Return 0.1…1.9, further from one with more strength."""
        return tf.maximum(1 + self.signed(0.9), 0.1)


def _operations(suffix, factor, **others):
    """Return operations of pixel values by name: image and layer -> image.

    Args:
        suffix: End of the names whose strength is a factor.
        factor: Function of a layer to that factor.
        others: Operations by name, besides those that every policy has.
    """
    plain = {"AutoContrast": autocontrast, "Equalize": equalize, "Invert": invert}
    blends = {
        "Color": color,
        "Contrast": contrast,
        "Brightness": brightness,
        "Sharpness": sharpness,
    }
    return {
        **{name: lambda image, _, do=do: do(image) for name, do in plain.items()},
        **{
            name + suffix: lambda image, layer, do=do: do(image, factor(layer))
            for name, do in blends.items()
        },
        **others,
    }


def _add_limited(image, layer):
    return solarize_add(image, tf.minimum(layer.whole(110), 128))


def _cutout(image, layer):
    size = tf.maximum(layer.whole(40), 2)
    return cutout(image, size, layer.row, layer.column, CUTOUT_GREY)


# Layer, height and width -> matrix.
GEOMETRIC = {
    "Rotate": lambda layer, h, w: rotation(layer.signed(30), h, w),
    "ShearX": lambda layer, h, w: shear_x(layer.signed(0.3)),
    "ShearY": lambda layer, h, w: shear_y(layer.signed(0.3)),
    "TranslateXRel": lambda layer, h, w: translate_x(layer.signed(0.45) * w),
    "TranslateYRel": lambda layer, h, w: translate_y(layer.signed(0.45) * h),
}

RAND = _operations(
    "",
    Layer.factor,
    Posterize=lambda image, layer: posterize(image, layer.whole(4)),
    Solarize=lambda image, layer: solarize(image, layer.whole(256)),
    SolarizeAdd=_add_limited,
)
RAND_INCREASING = _operations(
    "Increasing",
    Layer.increasing_factor,
    PosterizeIncreasing=lambda image, layer: posterize(image, 4 - layer.whole(4)),
    SolarizeIncreasing=lambda image, layer: solarize(image, 256 - layer.whole(256)),
    SolarizeAdd=_add_limited,
)
REPMLPNET_CHOICES = {
    **RAND,
    "SolarizeAdd": lambda image, layer: solarize_add(image, layer.whole(110)),
    "Cutout": _cutout,
}
