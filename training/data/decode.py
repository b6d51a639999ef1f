"""Encoded images as the pixels that a model trains on or is tested on.

An image is either encoded, a scalar string of JPEG, PNG, GIF, BMP or WebP, or
`(H, W, 3)` uint8. JPEGs equal Pillow's to the bit, resized images to within rounding
(Pillow rounds between its passes). The orientation in EXIF is ignored, as it is by the
published trainers.
"""

import functools
import math

import tensorflow as tf

# What a shift uncovers at most, as a share of the side.
SHIFT = 1 / 8
# How often a crop is drawn that may not fit before the centre is taken.
ATTEMPTS = 10
# Crops that are windows of the whole image, which can be kept decoded.
WHOLE_CROPS = ("pad", "shift", "none")
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
# The slower of TensorFlow's two; the other errs by 1 in 255.
_JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}


def decode(image):
    """The whole image, `(H, W, 3)` uint8; of an animation the first frame."""
    if image.dtype != tf.string:
        return image
    return _decoded(
        image,
        lambda: tf.io.decode_jpeg(image, **_JPEG),
        lambda pixels: pixels,
    )


def centre_crop(image, size, test_crop, interpolation):
    """Resizes the shorter side to `size / test_crop` and takes the centre.

    Args:
        image: encoded or decoded.
        size: of the result.
        test_crop: in (0, 1].
        interpolation: `"bilinear"` or `"bicubic"`.

    Returns:
        `(size, size, 3)` uint8, equal to timm's evaluation transform.
    """
    image = decode(image)
    height, width = _sides(image)
    shorter = tf.minimum(height, width)
    resized = math.floor(size / test_crop)
    # The longer side is rounded down, the margin to the nearest even.
    sides = tf.stack([height, width]) * resized // shorter
    margin = tf.round(tf.cast(sides - size, tf.float32) / 2)
    scale = tf.cast(sides, tf.float32) / tf.cast(tf.stack([height, width]), tf.float32)
    sampled = functools.partial(_sampled, image, size, scale, -margin, interpolation)
    if resized != size or not image.shape.is_compatible_with((size, size, 3)):
        return sampled()
    return tf.cond(
        (height == size) & (width == size),
        lambda: tf.ensure_shape(image, (size, size, 3)),
        sampled,
    )


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
        return tf.io.decode_and_crop_jpeg(image, box, **_JPEG)

    def pixels(whole):
        top, left, height, width = tf.unstack(crop_box(*_sides(whole), shapes, ratio))
        return whole[top : top + height, left : left + width]

    part = pixels(image) if image.dtype != tf.string else _decoded(image, jpeg, pixels)
    scale = size / tf.cast(tf.stack(_sides(part)), tf.float32)

    def sampled(method):
        return lambda: _sampled(part, size, scale, tf.zeros(2), method)

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


def normalise(image, mean, std):
    """`(S, S, 3)` uint8 as the model takes it, float32."""
    # Rows of colours: broadcasting over the last axis of three is slow.
    size = image.shape[1]
    mean = tf.tile(255 * tf.constant(mean, tf.float32), [size])
    factor = tf.tile(1 / (255 * tf.constant(std, tf.float32)), [size])
    rows = tf.cast(tf.reshape(image, (-1, 3 * size)), tf.float32)
    return tf.reshape((rows - mean) * factor, image.shape)


def _decoded(image, jpeg, pixels):
    """`jpeg()` of a JPEG, `pixels` of the pixels of anything else."""

    def other():
        whole = tf.raw_ops.DecodeImage(
            contents=image, channels=3, expand_animations=False
        )
        return pixels(tf.ensure_shape(whole, (None, None, 3)))

    return tf.cond(tf.io.is_jpeg(image), jpeg, other)


def _sampled(image, size, scale, translation, interpolation):
    """A window of the resized image, antialiased as Pillow does."""
    window = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=(size, size),
        scale=scale,
        translation=translation,
        kernel_type=_KERNELS[interpolation],
        antialias=True,
    )[0]
    if interpolation == "bicubic":  # it overshoots
        window = tf.clip_by_value(window, 0, 255)
    return tf.ensure_shape(tf.cast(window + 0.5, tf.uint8), (size, size, 3))


def _sides(image):
    shape = tf.shape(image)
    return shape[0], shape[1]
