"""The random parts of images that a model trains on."""

import math

import tensorflow as tf

from kmlp.data.decode import JPEG, by_kind, centre_crop, height_and_width, window

# What a shift uncovers at most, as a share of the side.
SHIFT = 1 / 8
# How often a crop is drawn that may not fit before the centre is taken.
ATTEMPTS = 10
# Crops that are windows of the whole image, which can be kept decoded.
WHOLE_CROPS = ("pad", "shift", "none")


def square(image, size, interpolation):
    """The whole image, of which `WHOLE_CROPS` show windows: its largest square.

    Args:
        image: encoded or decoded.
        size: of the result.
        interpolation: `"bilinear"`, `"bicubic"`, or `"random"`, which is bicubic here.
    """
    method = "bilinear" if interpolation == "bilinear" else "bicubic"
    return centre_crop(image, size, 1.0, method)


def crop_shapes(draws, area, ratio):
    """Height, width and place of random crops, for images of any shape.

    Args:
        draws: `(N, ATTEMPTS, 4)` in [0, 1).
        area: low and high share of the image's area.
        ratio: low and high ratio of width to height.

    Returns:
        `(N, ATTEMPTS, 4)`: height and width as shares of the geometric mean of the
        image's sides, top and left as shares of what is free.
    """
    share = area[0] + draws[..., 0] * (area[1] - area[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + draws[..., 1] * (high - low))
    height, width = tf.sqrt(share / aspect), tf.sqrt(share * aspect)
    return tf.stack([height, width, draws[..., 2], draws[..., 3]], axis=-1)


def crop_box(height, width, shapes, ratio):
    """The first crop that fits into an image, else the largest central one.

    Args:
        height, width: of the image, int32.
        shapes: `(ATTEMPTS, 4)` of `crop_shapes`.
        ratio: low and high ratio of width to height of the central one.

    Returns:
        `(4,)` int32: top, left, height, width.
    """
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    drawn = tf.sqrt(sides[0] * sides[1]) * shapes[:, :2]
    largest = tf.reverse(sides, [0]) * [1 / ratio[0], ratio[1]]
    central = tf.minimum(sides, largest)
    boxes = tf.maximum(tf.round(tf.concat([drawn, central[None]], 0)), 1)
    fits = tf.reduce_all(boxes <= sides, axis=1)
    # A hair under a half: free space of 1 gives 0, of 2 gives 1.
    places = tf.concat([shapes[:, 2:], [[0.5 - 2**-20] * 2]], 0)
    corners = tf.floor(places * (sides - boxes + 1))
    first = tf.argmax(tf.cast(fits, tf.int32))
    return tf.cast(tf.concat([corners[first], boxes[first]], 0), tf.int32)


def resized_crop(image, size, shapes, ratio, interpolation, cubic):
    """A random part of the image, resized.

    Of a JPEG, only the part is decoded.

    Args:
        image: encoded or decoded.
        size: of the result.
        shapes: `(ATTEMPTS, 4)` of `crop_shapes`.
        ratio: low and high ratio of width to height.
        interpolation: `"bilinear"`, `"bicubic"` or `"random"`.
        cubic: which of the two `"random"` means, a boolean tensor.

    Returns:
        `(size, size, 3)` uint8.

    Reference:
        Szegedy et al., Going deeper with convolutions, section 6; the draws are those
        of timm's `RandomResizedCropAndInterpolation`.
    """

    def jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(image))
        box = crop_box(height, width, shapes, ratio)
        return tf.io.decode_and_crop_jpeg(image, box, **JPEG)

    def pixels(whole):
        box = crop_box(*height_and_width(whole), shapes, ratio)
        top, left, height, width = tf.unstack(box)
        return whole[top : top + height, left : left + width]

    part = pixels(image) if image.dtype != tf.string else by_kind(image, jpeg, pixels)
    scale = size / tf.cast(tf.stack(height_and_width(part)), tf.float32)

    def sampled(method):
        return lambda: window(part, size, scale, tf.zeros(2), method)

    if interpolation == "random":
        return tf.cond(cubic, sampled("bicubic"), sampled("bilinear"))
    return sampled(interpolation)()


def shift(image, draws):
    """Moves a square image by whole pixels; what is uncovered is black.

    Args:
        image: `(S, S, 3)` uint8.
        draws: two numbers in [0, 1).
    """
    size = image.shape[0]
    reach = int(size * SHIFT)
    padded = tf.pad(image, [(reach, reach), (reach, reach), (0, 0)])
    top, left = tf.unstack(tf.cast(tf.floor(draws * (2 * reach + 1)), tf.int32))
    return tf.slice(padded, [top, left, 0], [size, size, 3])


def mirror(image, mirrored):
    """The image from right to left where `mirrored`."""
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
