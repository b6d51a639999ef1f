"""Images in memory or in files, as the batches that a model trains on."""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

# Above this size a training image is a random crop; below, a small random shift.
LARGEST_SHIFTED = 64
SHIFT = 1 / 8
CROP_AREA = (0.25, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
TEST_CROP = 7 / 8


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of training or validation.

    Attributes:
        labels: `(N,)` class numbers.
        images: `(N, S, S, 3)` uint8, or `None` where they stay in files.
        paths: of the files, where `images` is `None`.
        stored_size: `S`.
    """

    labels: np.ndarray
    images: np.ndarray | None
    paths: np.ndarray | None
    stored_size: int

    def __len__(self):
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Images:
    """A data set of two splits.

    Attributes:
        name: for the person and the report.
        class_names: in the order of the labels.
        size: of the images that the model sees.
        mean, std: per channel, of images in 0…1.
        flip: whether a mirrored image is as good an example.
        skipped: files that were left out as unreadable.
    """

    name: str
    class_names: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    train: Split
    validation: Split
    skipped: tuple[str, ...] = ()

    def summary(self):
        """What a report says of the data."""
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "training_images": len(self.train),
            "validation_images": len(self.validation),
            "skipped_images": list(self.skipped),
        }


def stored_size(size):
    """Height and width at which images are kept for a model that sees `size`."""
    return size if size <= LARGEST_SHIFTED else math.ceil(size / TEST_CROP)


def fits_in_memory(count, size):
    """Whether decoded images take at most a quarter of the machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return count * size * size * 3 <= memory / 4


def square(contents, size):
    """Decodes JPEG or PNG bytes: resized, centre-cropped, `(size, size, 3)` uint8."""
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    shorter = tf.minimum(height, width)
    top, left = (height - shorter) // 2, (width - shorter) // 2
    image = image[top : top + shorter, left : left + shorter]
    if shorter != size:
        image = to_uint8(tf.image.resize(image, (size, size), antialias=True))
    return tf.ensure_shape(image, (size, size, 3))


def to_uint8(images):
    """Float images in 0…255, rounded; bicubic filters overshoot a little."""
    return tf.cast(tf.clip_by_value(tf.round(images), 0, 255), tf.uint8)


def training_batches(data, batch_size, seed):
    """Shuffled, augmented, normalised `(images, one-hot labels)`.

    The order and the augmentation follow from the seed and differ from epoch to
    epoch. The last batch is left out where it is not full.
    """
    count = len(data.train)
    order = tf.data.Dataset.range(count).shuffle(count, seed=seed)
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    batches = _batches(order, data.train, min(batch_size, count), remainder=False)

    def augmented(batch, draw):
        images, labels = batch
        images = augment(images, tf.stack([draw, draw + 1]), data.size, data.flip)
        return normalise(images, data), tf.one_hot(labels, len(data.class_names))

    return tf.data.Dataset.zip(batches, draws).map(augmented).prefetch(2)


def validation_batches(data, batch_size):
    """Centre crops in order, normalised: `(images, one-hot labels)`."""
    margin = (data.validation.stored_size - data.size) // 2
    inner = slice(margin, margin + data.size)

    def prepared(images, labels):
        images = normalise(tf.cast(images[:, inner, inner], "float32"), data)
        return images, tf.one_hot(labels, len(data.class_names))

    order = tf.data.Dataset.range(len(data.validation))
    batches = _batches(order, data.validation, batch_size, remainder=True)
    return batches.map(prepared).prefetch(2)


def _batches(order, split, batch_size, remainder):
    """`(N, S, S, 3)` uint8 and `(N,)` labels for a data set of indices."""
    with tf.device("CPU"):
        labels = tf.constant(split.labels)
        stored = tf.constant(split.paths if split.images is None else split.images)
    if split.images is not None:
        batches = order.batch(batch_size, drop_remainder=not remainder)
        return batches.map(lambda i: (tf.gather(stored, i), tf.gather(labels, i)))

    def read(index):
        contents = tf.io.read_file(stored[index])
        return square(contents, split.stored_size), labels[index]

    return order.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(
        batch_size, drop_remainder=not remainder
    )


def augment(images, seed, size, flip):
    """Random shifts of small images, random crops of large ones, and mirroring.

    Each is a box of the stored image that is sampled at the model's size; a
    mirrored box runs from right to left.

    Args:
        images: `(N, S, S, 3)` uint8.
        seed: two integers.
        size: of the result; `S` itself for shifts.
        flip: whether half of the images are mirrored.

    Returns:
        `(N, size, size, 3)` float32 in 0…255; what a shift uncovers is black.
    """
    count = tf.shape(images)[0]
    draws = tf.unstack(tf.random.stateless_uniform((5, count), seed))
    if size <= LARGEST_SHIFTED:
        reach = int(size * SHIFT)
        images = tf.pad(images, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
        last = images.shape[1] - 1
        top, left = (tf.round(2 * reach * draw) for draw in draws[:2])
        height = width = tf.fill((count,), float(size - 1))
    else:
        last = images.shape[1] - 1
        area = CROP_AREA[0] + draws[3] * (CROP_AREA[1] - CROP_AREA[0])
        low, high = (math.log(value) for value in CROP_ASPECT)
        aspect = tf.exp(low + draws[4] * (high - low))
        height = last * tf.minimum(tf.sqrt(area / aspect), 1)
        width = last * tf.minimum(tf.sqrt(area * aspect), 1)
        top, left = draws[0] * (last - height), draws[1] * (last - width)
    right = left + width
    if flip:
        left, right = (
            tf.where(draws[2] < 0.5, *edges) for edges in ((left, right), (right, left))
        )
    boxes = tf.stack([top, left, top + height, right], axis=-1) / last
    return tf.image.crop_and_resize(images, boxes, tf.range(count), (size, size))


def normalise(images, data):
    """Float images in 0…255 as the model takes them."""
    mean = 255 * np.asarray(data.mean, "float32")
    std = 255 * np.asarray(data.std, "float32")
    return (images - mean) / std
