"""Affine transforms of images, as Pillow computes them.

A matrix `(a, b, c, d, e, f)`, float64, says where a pixel of the result comes from:
from `(a x + b y + c, d x + e y + f)`, counted in pixels from the left and the top
edge, a pixel's centre lying at half a pixel.
"""

import math

import tensorflow as tf


def affine(image, matrix, fill, cubic):
    """Samples an image where a matrix says.

    Differs from Pillow by one level where single precision rounds a value to the
    other side of an integer.

    Args:
        image: `(H, W, 3)` uint8.
        matrix: six numbers.
        fill: the colour of what comes from outside, three integers in 0…255.
        cubic: scalar boolean, whether to interpolate by 4 x 4 pixels (Pillow's
            "bicubic") and not by 2 x 2.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    a, b, c, d, e, f = tf.unstack(tf.cast(matrix, tf.float32))
    x = tf.cast(tf.range(width), tf.float32) + 0.5
    y = tf.cast(tf.range(height), tf.float32)[:, None] + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < tf.cast(width, tf.float32))
    inside &= (y >= 0) & (y < tf.cast(height, tf.float32))
    pixels = tf.reshape(image, (-1, 3))

    def sampled(interpolate, offsets):
        left, across = _split(x - 0.5)
        top, down = _split(y - 0.5)

        def pixel(row, column):
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


def rotation(degrees, height, width):
    """Counter-clockwise, about the image's centre."""
    angle = degrees * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x, y = width / 2, height / 2
    left = x - cos * x + sin * y
    top = y - sin * x - cos * y
    return _matrix(cos, -sin, left, sin, cos, top)


def shear_x(factor):
    """Moves each row to the left, the further the lower it lies."""
    return _matrix(1, factor, 0, 0, 1, 0)


def shear_y(factor):
    """Moves each column upwards, the further the more to the right it lies."""
    return _matrix(1, 0, 0, factor, 1, 0)


def translate_x(pixels):
    """To the left."""
    return _matrix(1, 0, pixels, 0, 1, 0)


def translate_y(pixels):
    """Upwards."""
    return _matrix(1, 0, 0, 0, 1, pixels)


def _matrix(*values):
    return tf.stack([tf.cast(value, tf.float64) for value in values])


def _split(position):
    """The whole part, int32, and the rest of each, with an axis for channels."""
    whole = tf.floor(position)
    return tf.cast(whole, tf.int32), (position - whole)[..., None]


def _linear(values, t):
    first, second = values
    return first + t * (second - first)


def _cubic(values, t):
    """Keys' kernel with a = -1."""
    p, q, r, s = values
    return q + t * (r - p + t * (2 * (p - q) + r - s + t * (q - p + s - r)))
