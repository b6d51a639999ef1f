"""Random erasing: a rectangle of noise in an image."""

import math

import tensorflow as tf

AREA = (0.02, 1 / 3)
LARGEST_ASPECT = 1 / 0.3
ATTEMPTS = 10
_STREAM = 2


def erase(image, seed, probability):
    """Replaces a random rectangle by standard normal noise, different in every pixel.

    Its area is uniform in 0.02…1/3 of the image's, the logarithm of its height by its
    width uniform between those of 0.3 and 1/0.3. What does not fit is drawn again, at
    most ten times.

    Args:
        image: `(H, W, 3)` float32, normalised.
        seed: `(2,)` integers.
        probability: of erasing.

    Returns:
        `(H, W, 3)` float32.

    References:
        Zhong et al., "Random Erasing Data Augmentation"; timm's `RandomErasing`, mode
        "pixel".
    """
    if not probability:
        return image
    seed = tf.random.fold_in(seed, _STREAM)
    draws = tf.random.stateless_uniform((1 + 4 * ATTEMPTS,), seed)

    def erased():
        height, width = tf.unstack(tf.shape(image)[:2])
        tries = tf.reshape(draws[1:], (4, ATTEMPTS))
        fits, top, left, rows, columns = rectangles(tries, height, width)
        first = tf.argmax(fits)
        box = [values[first] for values in (top, left, rows, columns)]
        return tf.cond(
            fits[first],
            lambda: _filled(image, box, tf.random.fold_in(seed, 1)),
            lambda: image,
        )

    return tf.ensure_shape(
        tf.cond(draws[0] < probability, erased, lambda: image), image.shape
    )


def rectangles(draws, height, width):
    """Rectangles from uniform draws.

    Args:
        draws: `(4, N)` in 0…1: area, aspect, and where it lies vertically and
            horizontally.
        height, width: of the image, int32.

    Returns:
        Five tensors `(N,)`: whether it fits; top, left, height and width, int32.
    """
    area, aspect, down, across = tf.unstack(draws)
    area = (AREA[0] + area * (AREA[1] - AREA[0])) * tf.cast(height * width, area.dtype)
    aspect = tf.exp((2 * aspect - 1) * math.log(LARGEST_ASPECT))
    rows = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    columns = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    fits = (rows < height) & (columns < width)
    top = tf.cast(down * tf.cast(height - rows + 1, down.dtype), tf.int32)
    left = tf.cast(across * tf.cast(width - columns + 1, across.dtype), tf.int32)
    return fits, top, left, rows, columns


def _filled(image, box, seed):
    top, left, rows, columns = box
    noise = tf.random.stateless_normal((rows, columns, 3), seed, dtype=image.dtype)
    middle = image[top : top + rows]
    middle = tf.concat([middle[:, :left], noise, middle[:, left + columns :]], axis=1)
    return tf.concat([image[:top], middle, image[top + rows :]], axis=0)
