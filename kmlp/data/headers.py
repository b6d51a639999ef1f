"""What encoded images say of themselves, before anything is decoded.

A few bytes can claim billions of pixels. What a server takes from strangers is judged
by its header, and only then is memory taken for pixels.
"""

import tensorflow as tf

# Of one image. The longest side is JPEG's own limit; a resized row takes 12 bytes for
# each pixel of a side.
LARGEST_IMAGE = 2**26
LONGEST_SIDE = 2**16 - 1
LIMITS = f"at most {LARGEST_IMAGE} pixels, {LONGEST_SIDE} a side"
# How many of a request's images a refusal names.
NAMED = 3

_JPEG = list(b"\xff\xd8\xff")
_PNG = list(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
_HEADER = 24  # bytes of a PNG up to and with its height


def checked(images, name):
    """Encoded images, once their headers have been found good.

    Every image must be a JPEG or a PNG of at least one pixel, at most
    `LARGEST_IMAGE` in all and `LONGEST_SIDE` along a side; GIF, BMP and WebP are
    refused. What is damaged behind its header shows only when it is decoded.

    Args:
        images: `(N,)` strings.
        name: of the argument, for messages.

    Returns:
        `(N,)` strings.

    Raises:
        InvalidArgumentError: when run, for the whole batch; the message names the
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
    """`(N, 2)` width and height of the JPEGs, zeros of the others."""

    def sides(element):
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
