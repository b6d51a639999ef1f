"""Mixup and CutMix of batches, and random erasing of images."""

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf


def compiled(function: Callable) -> Callable:
    """Return the function as one compiled kernel, several times as fast as its ops.

    On the hosts of TPUs the compiler serves the TPU alone: there the ops run one by
    one, with the same result.

    Args:
        function: Function of tensors, whose shapes follow from its arguments'.
    """
    return tf.function(function, jit_compile=not tf.config.list_logical_devices("TPU"))


_STREAM = 3


def mix(
    images: tf.Tensor, labels: tf.Tensor, classes: int, seed: tf.Tensor, recipe: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix a batch by mixup or CutMix, by one draw for the whole batch.

    Args:
        images: Images `(B, H, W, 3)`, float32; B may be odd, the middle image then
            meets itself.
        labels: Labels `(B,)`, integers.
        classes: Number of classes, K.
        seed: Seed `(2,)`, integers.
        recipe: A `ClassificationRecipe`. Its `label_smoothing` is spread over all
            classes; `mixup` and `cutmix` are alpha of Beta(alpha, alpha), of which the
            share that an image keeps of itself is drawn, zero for never;
            `mix_probability` is that of mixing at all, `switch_probability` that of
            CutMix where both are on.

    Returns:
        Images `(B, H, W, 3)` and targets `(B, K)`, float32.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization"; Yun et al.,
        "CutMix"; timm's `Mixup`, mode "batch".
    """
    targets = smoothed(labels, classes, recipe.label_smoothing)
    mixup, cutmix = recipe.mixup, recipe.cutmix
    if not (mixup or cutmix) or not recipe.mix_probability:
        return images, targets
    seed = tf.random.fold_in(seed, _STREAM)
    draws = tf.random.stateless_uniform((4,), seed, dtype=tf.float64)
    applied, switch, row, column = tf.unstack(draws)
    if mixup and cutmix:
        cutting = switch < recipe.switch_probability
    else:
        cutting = tf.constant(bool(cutmix))
    alpha = tf.where(cutting, float(cutmix), float(mixup))
    share = _beta(alpha, tf.random.fold_in(seed, 1))
    share = tf.where(applied < recipe.mix_probability, share, 1.0)
    kept = tf.cond(
        cutting,
        lambda: outside(share, row, column, *tf.unstack(tf.shape(images)[1:3])),
        lambda: tf.fill(tf.shape(images)[1:3], tf.cast(share, images.dtype)),
    )
    return _compiled()(images, targets, kept)


def smoothed(labels: tf.Tensor, classes: int, smoothing: float) -> tf.Tensor:
    """Return float32 targets `(B, K)`: `smoothing / K`, the rest at the label."""
    off = smoothing / classes
    return tf.one_hot(labels, classes, on_value=1 - smoothing + off, off_value=off)


def outside(
    share: tf.Tensor,
    row: tf.Tensor,
    column: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
) -> tf.Tensor:
    """Return what CutMix's rectangle leaves of an image.

    The rectangle has the image's shape and a `1 - share` of its area; its centre may
    lie anywhere, and what lies outside of the image is cut off.

    Args:
        share: Share that is left, in 0…1, float64.
        row, column: Place of the centre, in 0…1, float64.
        height, width: Sides of the image, int32.

    Returns:
        Mask `(height, width)`, float32, one where the image stays.
    """
    ratio = tf.sqrt(1 - share)

    def covered(draw: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
        length = tf.cast(tf.cast(side, ratio.dtype) * ratio, tf.int32)
        centre = tf.cast(tf.cast(side, draw.dtype) * draw, tf.int32)
        first = centre - length // 2
        position = tf.range(side)
        return (position >= first) & (position < first + length)

    inside = covered(row, height)[:, None] & covered(column, width)
    return 1 - tf.cast(inside, tf.float32)


def mixed(
    images: tf.Tensor, targets: tf.Tensor, kept: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the batch blended with itself in reverse.

    Args:
        images: Images `(B, H, W, 3)`, float32.
        targets: Targets `(B, K)`, float32.
        kept: Share `(H, W)`, float32, that every pixel keeps of itself; targets keep
            the mean.

    Returns:
        Images and targets of the same shapes.
    """
    share = tf.cast(tf.reduce_mean(tf.cast(kept, tf.float64)), tf.float32)
    weights = kept[..., None]
    images = weights * images + (1 - weights) * tf.reverse(images, [0])
    return images, share * targets + (1 - share) * tf.reverse(targets, [0])


@functools.cache
def _compiled():
    return compiled(mixed)


def _beta(alpha, seed):
    """Draw from Beta(alpha, alpha), float64."""
    alpha = tf.cast(alpha, tf.float64)
    draws = tf.random.stateless_gamma((2,), seed, alpha=alpha, dtype=alpha.dtype)
    first, second = tf.unstack(draws)
    return first / (first + second)


AREA = (0.02, 1 / 3)
LARGEST_ASPECT = 1 / 0.3
ATTEMPTS = 10
_ERASING_STREAM = 2


def erase(image: tf.Tensor, seed: tf.Tensor, probability: float) -> tf.Tensor:
    """Replace a random rectangle by standard normal noise, different in every pixel.

    Its area is uniform in 0.02…1/3 of the image's, the logarithm of its height by its
    width uniform between those of 0.3 and 1/0.3. What does not fit is drawn again, at
    most ten times.

    Args:
        image: Image `(H, W, 3)`, float32, normalised.
        seed: Seed `(2,)`, integers.
        probability: Probability of erasing.

    Returns:
        Image `(H, W, 3)`, float32.

    References:
        Zhong et al., "Random Erasing Data Augmentation"; timm's `RandomErasing`, mode
        "pixel".
    """
    if not probability:
        return image
    seed = tf.random.fold_in(seed, _ERASING_STREAM)
    draws = tf.random.stateless_uniform((1 + 4 * ATTEMPTS,), seed)

    def erased() -> tf.Tensor:
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


def rectangles(
    draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Return rectangles from uniform draws.

    Args:
        draws: Draws `(4, N)` in 0…1: area, aspect, and where it lies vertically and
            horizontally.
        height, width: Sides of the image, int32.

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
