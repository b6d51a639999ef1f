"""Encoded images as the pixels that a model is tested on and serves.

An image is either encoded, a scalar string of JPEG, PNG, WebP or BMP, or `(H, W, 3)`
uint8. Pixels equal Pillow's to the bit (`kmlp.data.pictures`), resized images to within
rounding (Pillow rounds between its passes). The orientation in a JPEG's EXIF is ignored
unless it is asked for, as it is by the published trainers.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from kmlp.data.pictures import BMP_FORMS, HEADER, KINDS
from kmlp.typing import Tensor

_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
# The slower of TensorFlow's two; the other errs by 1 in 255.
JPEG = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}


def decode(image: Tensor, upright: bool = False) -> Tensor:
    """Decode the whole image, `(H, W, 3)` uint8.

    Args:
        image: Encoded or decoded image.
        upright: Whether an encoded JPEG is turned as its EXIF states.
    """
    if image.dtype != tf.string:
        return image
    pixels = by_kind(
        image, lambda: tf.io.decode_jpeg(image, **JPEG), lambda pixels: pixels
    )
    return _turned(pixels, _orientation(image)) if upright else pixels


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

    def decoded(channels: int) -> Callable[[], Tensor]:
        # WebP takes no fewer channels than it has.
        return lambda: tf.raw_ops.DecodeImage(
            contents=image, channels=channels, expand_animations=False
        )[..., :3]

    def other() -> Tensor:
        headers = _headers(image[None])
        found = {name: is_it[0] for name, is_it in _kinds(headers).items()}
        # Of 8 bits, TensorFlow takes the palette's indices for colours.
        paletted = found["bmp"] & (headers[0, _BMP_BITS] == 8)
        whole = tf.case(
            [
                (found["webp"], decoded(0)),
                (paletted, lambda: _paletted(image, headers)),
                (found["png"] | found["bmp"], decoded(3)),
            ],
            default=_refused,
        )
        return pixels(tf.ensure_shape(whole, (None, None, 3)))

    return tf.cond(tf.io.is_jpeg(image), jpeg, other)


def _refused():
    with tf.control_dependencies([tf.debugging.Assert(False, [f"none of {KINDS}"])]):
        return tf.zeros((0, 0, 3), tf.uint8)


def _paletted(image, headers):
    """Return the colours of a BMP of 8 bits per pixel."""
    bytes_ = tf.io.decode_raw(image, tf.uint8)
    width, height = tf.unstack(_signed(_little(headers, 18, 4, 2))[0])
    start, size = _little(headers, 10, 4)[0], _little(headers, 14, 4)[0]
    stride, rows = (width + 3) // 4 * 4, tf.abs(height)
    indices = tf.reshape(tf.slice(bytes_, [start], [rows * stride]), (rows, stride))
    # From the bottom up, unless the height is negative.
    indices = tf.cond(height > 0, lambda: indices[::-1], lambda: indices)
    palette = bytes_[14 + size : start]
    palette = tf.reshape(palette[: tf.size(palette) // 4 * 4], (-1, 4))
    return tf.gather(palette[:, 2::-1], tf.cast(indices[:, :width], tf.int32))


# The bytes of a JPEG in which EXIF is looked for.
_EXIF_REACH = 2**17
_EXIF = list(b"Exif\0\0")
_ORIENTATION = 0x0112


def _orientation(image):
    """Return the orientation, 1 to 8, that a JPEG's EXIF states; 1 where none does."""
    start = tf.strings.substr(image, 0, _EXIF_REACH)
    # As many zeros behind it as the longest entry that a damaged file points to.
    bytes_ = tf.pad(tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int32), [(0, 64)])
    last = tf.size(bytes_) - 64

    def at(places: Tensor, count: int, little: Tensor) -> Tensor:
        places = tf.clip_by_value(places, 0, last)[..., None] + tf.range(count)
        digits = tf.gather(bytes_, places)
        digits = tf.where(little, digits[..., ::-1], digits)
        return tf.reduce_sum(digits * 256 ** tf.range(count)[::-1], -1)

    # A segment APP1: marker, two bytes of length, what it holds.
    marks = [(0, 0xFF), (1, 0xE1), *((4 + i, c) for i, c in enumerate(_EXIF))]
    found = tf.reduce_all([bytes_[i : last + i] == value for i, value in marks], 0)
    exif = tf.cast(tf.argmax(found), tf.int32) + 10
    little = at(exif, 1, True) == ord("I")
    directory = exif + at(exif + 4, 4, little)
    entries = tf.range(tf.minimum(at(directory, 2, little), 512))
    entries = directory + 2 + 12 * entries
    of_it = (at(entries, 2, little) == _ORIENTATION) & (entries < last)
    stated = tf.reduce_max(tf.where(of_it, at(entries + 8, 2, little), 1))
    good = tf.io.is_jpeg(image) & tf.reduce_any(found) & (stated >= 1) & (stated <= 8)
    return tf.where(good, stated, 1)


def _turned(pixels, orientation):
    """Return pixels `(H, W, 3)` upright, as EXIF's numbers mean it."""

    def turned() -> Tensor:
        upright = tf.cond(
            orientation >= 5, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels
        )
        for axis, mirrored in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
            is_it = tf.reduce_any(orientation == tf.constant(mirrored))
            upright = tf.where(is_it, tf.reverse(upright, [axis]), upright)
        return upright

    whole = tf.cond(orientation > 1, turned, lambda: pixels)
    return tf.ensure_shape(whole, (None, None, 3))


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

_BMP_BITS = 28
_STILL = " (one picture each, BMP of 8, 24 or 32 bits and uncompressed)"


def _headers(images):
    """Return the first bytes of encoded images, `(N, HEADER)` int64, zeros beyond."""
    return tf.cast(tf.io.decode_raw(images, tf.uint8, fixed_length=HEADER), tf.int64)


def _kinds(headers):
    """Return `{kind: (N,) bool}` of headers that are of a kind that is taken."""

    def begins(signature: bytes, at: int = 0) -> Tensor:
        part = headers[:, at : at + len(signature)]
        return tf.reduce_all(part == list(signature), axis=1)

    bits, compression = headers[:, _BMP_BITS], _little(headers, 30, 4)
    form = [
        (bits == depth) & (compression == way)
        for depth, ways in BMP_FORMS.items()
        for way in ways
    ]
    animated = begins(b"VP8X", 12) & (headers[:, 20] // 2 % 2 == 1)
    return {
        "jpeg": begins(b"\xff\xd8\xff"),
        "png": begins(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        "webp": begins(b"RIFF") & begins(b"WEBPVP8", 8) & ~animated,
        "bmp": begins(b"BM") & (headers[:, 14] >= 40) & tf.reduce_any(form, axis=0),
    }


def _little(headers, at, count, numbers=1):
    """Return numbers of `count` bytes each, the lowest byte first."""
    digits = headers[:, at : at + count * numbers]
    digits = tf.reshape(digits, (-1, numbers, count))
    found = tf.reduce_sum(digits * [256**place for place in range(count)], axis=-1)
    return found if numbers > 1 else found[:, 0]


def _signed(numbers):
    """Return numbers of four bytes as what they stand for."""
    return tf.where(numbers >= 2**31, numbers - 2**32, numbers)


def _sides(images, headers, kinds):
    """Return width and height as headers state them, `(N, 2)` int64; 0 of no kind."""
    big_endian = tf.concat([headers[:, 19:15:-1], headers[:, 23:19:-1]], axis=1)
    bits = _little(headers, 21, 4)
    lossless = tf.stack([bits % 2**14, bits // 2**14 % 2**14], axis=1) + 1
    by_kind = {
        "png": _little(big_endian, 0, 4, 2),
        "bmp": tf.abs(_signed(_little(headers, 18, 4, 2))),
    }
    found = tf.where(kinds["jpeg"][:, None], _jpeg_sides(images, kinds["jpeg"]), 0)
    for kind, sides in by_kind.items():
        found = tf.where(kinds[kind][:, None], sides, found)
    webp = {
        b" ": _little(headers, 26, 2, 2) % 2**14,
        b"L": lossless,
        b"X": _little(headers, 24, 3, 2) + 1,
    }
    for letter, sides in webp.items():
        is_it = kinds["webp"] & (headers[:, 15] == ord(letter))
        found = tf.where(is_it[:, None], sides, found)
    return found


def checked(images: Tensor, name: str) -> Tensor:
    """Return encoded images, once their headers have been found good.

    Every image must be a JPEG, PNG, WebP or BMP of at least one pixel, at most
    `LARGEST_IMAGE` in all and `LONGEST_SIDE` along a side; GIFs, animated WebPs and
    compressed BMPs are refused. What is damaged behind its header shows only when it
    is decoded.

    Args:
        images: Encoded images `(N,)`, strings.
        name: Name of the argument, for messages.

    Returns:
        Encoded images `(N,)`, strings.

    Raises:
        InvalidArgumentError: When run, for the whole batch; the message names the
            bad images by their indices.
    """
    headers = _headers(images)
    kinds = _kinds(headers)
    known = tf.reduce_any(list(kinds.values()), axis=0)
    sides = _sides(images, headers, kinds)
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
        tf.strings.join([f" is none of {KINDS}{_STILL}. Received: ", length]),
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
