"""Encoded images as the pixels that a model is tested on and serves.

An image is either encoded, a scalar string of JPEG, PNG, GIF, BMP or WebP, or
`(H, W, 3)` uint8. JPEGs equal Pillow's to the bit, resized images to within rounding
(Pillow rounds between its passes). The orientation in EXIF is ignored, as it is by the
published trainers.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from kmlp.typing import Tensor

_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
# The slower of TensorFlow's two; the other errs by 1 in 255.
JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}


def decode(image: Tensor) -> Tensor:
    """Decode the whole image, `(H, W, 3)` uint8; of an animation the first frame."""
    if image.dtype != tf.string:
        return image
    return by_kind(
        image, lambda: tf.io.decode_jpeg(image, **JPEG), lambda pixels: pixels
    )


def centre_crop(
    image: Tensor, size: int, test_crop: float, interpolation: str
) -> Tensor:
    """Resize the shorter side to `size / test_crop` and take the centre.

    Args:
        image: Encoded or decoded image.
        size: Height and width of the result.
        test_crop: Share in (0, 1].
        interpolation: Interpolation, `"bilinear"` or `"bicubic"`.

    Returns:
        Image `(size, size, 3)`, uint8, equal to timm's evaluation transform.
    """
    image = decode(image)
    resized = math.floor(size / test_crop)
    # A shape that is only found out must not decide: TensorFlow runs both sides of
    # such a condition within `tf.map_fn`.
    if resized == size and image.shape == (size, size, 3):
        return image
    height, width = height_and_width(image)
    shorter = tf.minimum(height, width)
    # The longer side is rounded down, the margin to the nearest even.
    sides = tf.stack([height, width]) * resized // shorter
    margin = tf.round(tf.cast(sides - size, tf.float32) / 2)
    scale = tf.cast(sides, tf.float32) / tf.cast(tf.stack([height, width]), tf.float32)
    return window(image, size, scale, -margin, interpolation)


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return `(S, S, 3)` uint8 as the model takes it, float32."""
    # Rows of colours: broadcasting over the last axis of three is slow.
    size = image.shape[1]
    mean = tf.tile(255 * tf.constant(mean, tf.float32), [size])
    factor = tf.tile(1 / (255 * tf.constant(std, tf.float32)), [size])
    rows = tf.cast(tf.reshape(image, (-1, 3 * size)), tf.float32)
    return tf.reshape((rows - mean) * factor, image.shape)


def by_kind(
    image: Tensor, jpeg: Callable[[], Tensor], pixels: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return `jpeg()` of a JPEG, `pixels` of the pixels of anything else."""

    def other() -> Tensor:
        whole = tf.raw_ops.DecodeImage(
            contents=image, channels=3, expand_animations=False
        )
        return pixels(tf.ensure_shape(whole, (None, None, 3)))

    return tf.cond(tf.io.is_jpeg(image), jpeg, other)


def window(
    image: Tensor, size: int, scale: Tensor, translation: Tensor, interpolation: str
) -> Tensor:
    """Return a window of the resized image, antialiased as Pillow does."""
    pixels = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=(size, size),
        scale=scale,
        translation=translation,
        kernel_type=_KERNELS[interpolation],
        antialias=True,
    )[0]
    if interpolation == "bicubic":  # it overshoots
        pixels = tf.clip_by_value(pixels, 0, 255)
    return tf.ensure_shape(tf.cast(pixels + 0.5, tf.uint8), (size, size, 3))


def height_and_width(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sides of an image, known only when the graph runs."""
    shape = tf.shape(image)
    return shape[0], shape[1]


# Of one image. The longest side is JPEG's own limit; a resized row takes 12 bytes for
# each pixel of a side.
LARGEST_IMAGE = 2**26
LONGEST_SIDE = 2**16 - 1
LIMITS = f"at most {LARGEST_IMAGE} pixels, {LONGEST_SIDE} a side"
# The number of a request's images that a refusal names.
NAMED = 3

_JPEG = list(b"\xff\xd8\xff")
_PNG = list(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
_HEADER = 24  # bytes of a PNG up to and with its height


def checked(images: Tensor, name: str) -> Tensor:
    """Return encoded images, once their headers have been found good.

    Every image must be a JPEG or a PNG of at least one pixel, at most
    `LARGEST_IMAGE` in all and `LONGEST_SIDE` along a side; GIF, BMP and WebP are
    refused. What is damaged behind its header shows only when it is decoded.

    Args:
        images: Encoded images `(N,)`, strings.
        name: Name of the argument, for messages.

    Returns:
        Encoded images `(N,)`, strings.

    Raises:
        InvalidArgumentError: When run, for the whole batch; the message names the
            bad images by their indices.
    """
    # Shorter strings are filled up with zeros.
    bytes_ = tf.io.decode_raw(images, tf.uint8, fixed_length=_HEADER)
    jpeg = tf.reduce_all(bytes_[:, : len(_JPEG)] == _JPEG, axis=1)
    png = tf.reduce_all(bytes_[:, : len(_PNG)] == _PNG, axis=1)
    # (N, 2): width and height, big-endian, of a PNG; zeros of anything else
    digits = tf.reshape(tf.cast(bytes_[:, 16:], tf.int64), (-1, 2, 4))
    sides = tf.reduce_sum(digits * [2**24, 2**16, 2**8, 1], axis=2)
    sides = tf.where(jpeg[:, None], _jpeg_sides(images, jpeg), sides)
    known = jpeg | png
    pixels = tf.reduce_prod(sides, axis=1)
    longest = tf.reduce_max(sides, axis=1)
    fits = (pixels > 0) & (pixels <= LARGEST_IMAGE) & (longest <= LONGEST_SIDE)
    size = tf.strings.join(
        [tf.as_string(sides[:, 0]), "x", tf.as_string(sides[:, 1]), " pixels"]
    )
    length = tf.strings.join([tf.as_string(tf.strings.length(images)), " bytes"])
    problem = tf.where(
        known,
        tf.strings.join([f" is too large or empty ({LIMITS}). Received: ", size]),
        tf.strings.join([" is neither JPEG nor PNG. Received: ", length]),
    )
    place = tf.as_string(tf.range(tf.size(images)))
    problems = tf.strings.join([f"{name}[", place, "]", problem])
    good = known & fits
    named = tf.boolean_mask(problems, ~good)[:NAMED]
    message = tf.strings.reduce_join(named, separator="; ")
    check = tf.debugging.Assert(tf.reduce_all(good), [message])
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _jpeg_sides(images, jpeg):
    """Return width and height of the JPEGs, zeros for the others, `(N, 2)`."""

    def sides(element: tuple[Tensor, Tensor]) -> Tensor:
        image, is_jpeg = element
        return tf.cond(
            is_jpeg,
            lambda: tf.io.extract_jpeg_shape(image, tf.int32)[1::-1],
            lambda: tf.zeros(2, tf.int32),
        )

    found = tf.map_fn(
        sides, (images, jpeg), fn_output_signature=tf.TensorSpec((2,), tf.int32)
    )
    return tf.cast(found, tf.int64)
