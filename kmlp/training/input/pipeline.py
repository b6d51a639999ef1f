"""Training images of classifiers: their crops, their augmentation, their batches.

A training image is a function of the seed and of its position in the run: nothing is
remembered from one to the next. So a run goes on at any step, and its images do not
depend on how many workers and devices share them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kmlp.data.decode import (
    JPEG,
    by_kind,
    centre_crop,
    height_and_width,
    normalise,
    window,
)
from kmlp.data.images import Source
from kmlp.data.reading import batched, finished, guarded, statistics
from kmlp.training.input import order, policies
from kmlp.training.input.mixing import erase, mix

# Attempts at a crop that may not fit before the centre is taken.
ATTEMPTS = 10
# Random numbers of an image: its crop, then shift, mirroring, interpolation.
_DRAWS = 4 * ATTEMPTS + 4


def training_batches(
    source: Source,
    recipe: Any,
    *,
    image_size: int,
    batch_size: int,
    seed: int = 0,
    **share: int,
) -> tf.data.Dataset:
    """Return shuffled, augmented, mixed batches without end.

    Where the recipe repeats images, they follow each other. All is drawn from seed and
    position, and mixing from those of a batch's first image: it alone depends on the
    number of replicas.

    Args:
        source: Data set with images to train on.
        recipe: A `ClassificationRecipe`.
        image_size: Height and width of the images.
        batch_size: Images per replica and step.
        seed: Seed of order, augmentation and mixing.
        **share: Further arguments of `order.visits`: `global_batch`, and the step and
            the worker that batches are for.

    Returns:
        A `tf.data.Dataset` of `(images, targets)`, float32 `(batch_size, image_size,
        image_size, 3)` and `(batch_size, classes)`.

    Raises:
        InputError: If there is no mean and deviation, or in the cases of
            `order.visits`.
    """
    split, classes = source.splits["train"], len(source.class_names)
    sample = _sampler(source, recipe, image_size)
    share = {"batch_size": batch_size, "seed": seed, **share}
    steps = order.visits(split.count, repeats=recipe.repeats, **share)

    def drawn(indices: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return indices, *draw(seed, positions, recipe)

    dataset = batched(steps.map(drawn).unbatch(), sample, split, batch_size)
    return finished(
        dataset.map(mixer(recipe, classes), num_parallel_calls=tf.data.AUTOTUNE), split
    )


def mixer(recipe: Any, classes: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return a function of a batch of what a sampler gives to `(images, targets)`."""

    def mixed(images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor) -> Any:
        return mix(images, labels, classes, order.seeds(key[0]), recipe)

    return mixed


def draw(seed: int, positions: tf.Tensor, recipe: Any) -> tuple[tf.Tensor, ...]:
    """Draw the random part of images: `(crops, draws, seeds, keys)`."""
    bits = order.bits(seed, order.SAMPLE, positions, _DRAWS + 2)
    draws = order.uniform(bits[:, :_DRAWS])
    crops = tf.reshape(draws[:, 4:], (-1, ATTEMPTS, 4))
    return (
        crop_shapes(crops, recipe.crop_scale, recipe.crop_ratio),
        draws[:, :4],
        order.seeds(bits[:, _DRAWS:]),
        order.bits(seed, order.BATCH, positions, 1)[:, 0],
    )


def _sampler(source, recipe, size):
    """Return a function of what `draw` gives to `(image, label, key)`."""
    split = source.train
    part, augmented = preparation(
        recipe, size, *statistics(split, recipe), flips=source.flip
    )
    read = guarded(split, part)

    def sample(index: tf.Tensor, *drawn: tf.Tensor) -> tuple[tf.Tensor, ...]:
        crops, draws, seeds, key = drawn
        image, label, _ = read(index, crops, draws)
        return augmented(image, draws, seeds), tf.cast(label, tf.int32), key

    return sample


def preparation(
    recipe: Any,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    flips: bool = True,
) -> tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]:
    """Return the two halves of a training image's way: crop, then augmentation.

    Args:
        recipe: A `ClassificationRecipe`.
        size: Height and width of the images.
        mean, std: Statistics that the images are normalised by.
        flips: Whether a mirrored image is as good an example.

    Returns:
        Functions `part(image, crops, draws)`, the crop of an encoded or decoded image,
        uint8, and `augmented(crop, draws, seeds)`, float32; their arguments are
        `draw`'s.
    """
    flip = 0.5 if recipe.flip is None else recipe.flip
    flip *= flips
    policy = _policy(recipe, mean)
    ratio, interpolation = recipe.crop_ratio, recipe.interpolation

    def part(image: tf.Tensor, crops: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        if recipe.crop == "resized":
            cubic = draws[3] < 0.5
            return resized_crop(image, size, crops, ratio, interpolation, cubic)
        if image.shape != (size, size, 3):
            image = square(image, size, interpolation)
        return image if recipe.crop == "none" else shift(image, draws[:2])

    def augmented(image: tf.Tensor, draws: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if flip:
            image = mirror(image, draws[2] < flip)
        if policy is not None:
            image = policy(image, seeds[0])
        image = normalise(image, mean, std)
        if recipe.erasing:
            image = erase(image, seeds[1], recipe.erasing)
        return image

    return part, augmented


def _policy(recipe, mean):
    if recipe.policy is None:
        return None
    return policies.policy(recipe.policy, mean=mean, interpolation=recipe.interpolation)


def square(image: tf.Tensor, size: int, interpolation: str) -> tf.Tensor:
    """Return the largest square of an image, of which `WHOLE_CROPS` show windows.

    Args:
        image: Encoded or decoded image.
        size: Height and width of the result.
        interpolation: Interpolation, `"bilinear"`, `"bicubic"`, or `"random"`, which is
            bicubic here.
    """
    method = "bilinear" if interpolation == "bilinear" else "bicubic"
    return centre_crop(image, size, 1.0, method)


def crop_shapes(
    draws: tf.Tensor, area: Sequence[float], ratio: Sequence[float]
) -> tf.Tensor:
    """Return height, width and place of random crops, for images of any shape.

    Args:
        draws: Draws `(N, ATTEMPTS, 4)` in [0, 1).
        area: Low and high share of the image's area.
        ratio: Low and high ratio of width to height.

    Returns:
        Shapes `(N, ATTEMPTS, 4)`: height and width as shares of the geometric mean of
        the image's sides, top and left as shares of what is free.
    """
    share = area[0] + draws[..., 0] * (area[1] - area[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + draws[..., 1] * (high - low))
    height, width = tf.sqrt(share / aspect), tf.sqrt(share * aspect)
    return tf.stack([height, width, draws[..., 2], draws[..., 3]], axis=-1)


def crop_box(
    height: tf.Tensor, width: tf.Tensor, shapes: tf.Tensor, ratio: Sequence[float]
) -> tf.Tensor:
    """Return the first crop that fits into an image, else the largest central one.

    Args:
        height, width: Sides of the image, int32.
        shapes: Shapes `(ATTEMPTS, 4)` of `crop_shapes`.
        ratio: Low and high ratio of width to height of the central one.

    Returns:
        Box `(4,)`, int32: top, left, height, width.
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


def resized_crop(
    image: tf.Tensor,
    size: int,
    shapes: tf.Tensor,
    ratio: Sequence[float],
    interpolation: str,
    cubic: tf.Tensor,
) -> tf.Tensor:
    """Return a random part of the image, resized.

    Of a JPEG, only the part is decoded.

    Args:
        image: Encoded or decoded image.
        size: Height and width of the result.
        shapes: Shapes `(ATTEMPTS, 4)` of `crop_shapes`.
        ratio: Low and high ratio of width to height.
        interpolation: Interpolation, `"bilinear"`, `"bicubic"` or `"random"`.
        cubic: Whether `"random"` means bicubic, a scalar boolean.

    Returns:
        Crop `(size, size, 3)` uint8.

    Reference:
        Szegedy et al., Going deeper with convolutions, section 6; the draws are those
        of timm's `RandomResizedCropAndInterpolation`.
    """

    def jpeg() -> tf.Tensor:
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(image))
        box = crop_box(height, width, shapes, ratio)
        return tf.io.decode_and_crop_jpeg(image, box, **JPEG)

    def pixels(whole: tf.Tensor) -> tf.Tensor:
        height, width = height_and_width(whole)
        box = crop_box(height, width, shapes, ratio)
        top, left, height, width = tf.unstack(box)
        return whole[top : top + height, left : left + width]

    part = pixels(image) if image.dtype != tf.string else by_kind(image, jpeg, pixels)
    scale = size / tf.cast(tf.stack(height_and_width(part)), tf.float32)

    def sampled(method: str) -> Callable[[], tf.Tensor]:
        return lambda: window(part, size, scale, tf.zeros(2), method)

    if interpolation == "random":
        return tf.cond(cubic, sampled("bicubic"), sampled("bilinear"))
    return sampled(interpolation)()


def shift(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Move a square image by whole pixels; what is uncovered is black.

    Args:
        image: Image `(S, S, 3)`, uint8.
        draws: Two numbers in [0, 1).
    """
    size = image.shape[0]
    reach = int(size * order.SHIFT)
    padded = tf.pad(image, [(reach, reach), (reach, reach), (0, 0)])
    top, left = tf.unstack(tf.cast(tf.floor(draws * (2 * reach + 1)), tf.int32))
    return tf.slice(padded, [top, left, 0], [size, size, 3])


def mirror(image: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Return the image from right to left where `mirrored`."""
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)
