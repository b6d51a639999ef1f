"""Images as batches, damaged files included.

Images that fit in memory are read and decoded once, before the first step. Others are
read again in every epoch, and one that cannot be is met in the middle of it.
"""

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kmlp.console import NAMED
from kmlp.data.decode import centre_crop, decode, normalise
from kmlp.data.images import Split
from kmlp.data.pictures import HEADER, fault
from kmlp.errors import InputError, RunError
from kmlp.typing import Tensor

# The number of images tried in place of one that cannot be decoded.
SUBSTITUTES = 3
_MARK = "cannot be decoded:"
# TensorFlow's message for a `KmlpError` raised in a NumPy function.
_STOPPED = re.compile(r"^kmlp\.errors\.(?:InputError|RunError): (.*)$", re.MULTILINE)
_SIGNATURES = {
    b"\xff\xd8": "damaged JPEG",
    b"\x89P": "damaged PNG",
    b"RI": "damaged WebP",
    b"BM": "damaged BMP",
}
_PNG_END = b"IEND\xaeB`\x82"
# Ways in which messages of TensorFlow, Python and `guarded` name a file.
_NAMING = (
    r"(?:.*(?:: |\}\} ))?(.+); (?:No such file|Permission denied|Input/output)",
    r"\[Errno \d+\] [^\n:]+: '([^\n']+)'",
    re.escape(f"[{_MARK}] [") + r"([^\n]*)\]",
)
REMEDY = (
    "replace or remove what is damaged, or pass --on-corrupt skip to train on the rest"
)


def read_all(
    split: Split, keep: Callable[[Tensor], Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read every image of a split once.

    Args:
        split: Images to read.
        keep: Function of an encoded or decoded image to the tensor to keep, that
            fails where the image cannot be decoded.

    Returns:
        Tuple `(kept, labels, failed)`: an array of what was kept, `(N,)` class numbers,
        and the indices of what cannot be decoded.
    """
    read = split.store.reader()

    def checked(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, label = read(index)
        return index, keep(image), label

    dataset = tf.data.Dataset.range(split.count).map(
        checked, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
    )
    dataset = dataset.ignore_errors().batch(256).prefetch(2)
    _, kept_spec, label_spec = dataset.element_spec
    shape = (split.count, *kept_spec.shape[1:])
    kept = np.empty(shape, kept_spec.dtype.as_numpy_dtype)
    labels = np.zeros(split.count, label_spec.dtype.as_numpy_dtype)
    good = np.zeros(split.count, bool)
    quiet = split.store.in_memory or not sys.stdout.isatty()
    bar = keras.utils.Progbar(split.count, verbose=0 if quiet else 1)
    for index, some, classes in dataset.as_numpy_iterator():
        good[index], kept[index], labels[index] = True, some, classes
        bar.add(len(index))
    if good.all():
        return kept, labels, np.array([], int)
    return kept[good], labels[good], np.flatnonzero(~good)


def guarded(split: Split, prepare: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that reads an image in training, whatever became of its file.

    Args:
        split: Images to read; its `on_corrupt` says what befalls an image that cannot
            be decoded: `"stop"` ends the iteration with an error that `reason` turns
            into words, `"skip"` takes one of the next few in its place. A file that
            is gone ends it in either case.
        prepare: Function of an image, and of what else there is, to a tensor.

    Returns:
        A function of an index, and of what else there is, to `(prepared image, label,
        whether it is the image of that index)`.
    """
    read = split.store.reader()

    def attempt(index: Tensor, arguments: Sequence[Tensor]) -> tuple[Any, Tensor]:
        image, label = read(index)
        return prepare(turned(image), *arguments), label

    def turned(image: Tensor) -> Tensor:
        return decode(image, upright=True) if split.upright else image

    def plain(index: Tensor, *arguments: Tensor) -> tuple[Any, Tensor, bool]:
        return *attempt(index, arguments), True

    def one(index: Tensor, *arguments: Tensor) -> Any:
        image, label = read(index)
        # Trying costs as much as a third of the preparation: few images have to.
        return tf.cond(
            _looks_whole(image),
            lambda: (prepare(turned(image), *arguments), label, True),
            lambda: tried(tf.cast(index, tf.int64), arguments),
        )

    def tried(index: Tensor, arguments: Sequence[Tensor]) -> Any:
        # An error ends an attempt, not the data set; the next is made only then.
        attempts = tf.data.Dataset.from_tensors(index).map(
            lambda index: plain(index, *arguments)
        )
        spec = attempts.element_spec
        attempts = attempts.ignore_errors()
        if split.on_corrupt == "skip":
            others = tf.data.Dataset.range(1, SUBSTITUTES + 1).map(
                lambda number: (*attempt(following(index, number), arguments), False)
            )
            attempts = attempts.concatenate(others.ignore_errors())
        last = tf.data.Dataset.from_tensors(index).map(lambda index: fail(index, spec))
        return attempts.concatenate(last).take(1).get_single_element()

    noted = set()

    def note(index: np.ndarray) -> None:
        if int(index) not in noted:
            noted.add(int(index))
            print(f"Skipped {named([split.store.place(index)])}", flush=True)

    def following(index: Tensor, number: Tensor) -> Tensor:
        with tf.control_dependencies([tf.numpy_function(note, [index], [])]):
            return (index + number) % split.count

    def fail(index: Tensor, spec: Any) -> tuple[Tensor, ...]:
        place = tf.numpy_function(
            lambda index: split.store.place(index).encode(), [index], tf.string
        )
        with tf.control_dependencies([tf.debugging.Assert(False, [_MARK, place])]):
            return tuple(
                tf.zeros([side or 0 for side in part.shape], part.dtype)
                for part in spec
            )

    return plain if split.store.in_memory else one


def reason(error: BaseException) -> RunError | None:
    """Return a `RunError` for an error that reading images raised, or `None`.

    Args:
        error: Any exception of the data set's iterator or what ran it.
    """
    text = str(error)
    if stopped := _STOPPED.search(text):
        return RunError(stopped[1])
    found = [match[1] for match in (re.search(p, text) for p in _NAMING) if match]
    if found:
        return RunError(
            "An image can no longer be read, or not be decoded; what was reached is "
            f"kept: {REMEDY}, then give the same command to go on. Received: "
            f"{named(found[:1])}",
        )
    if re.search(r"\{\{node [^}]*(Decode|ExtractJpegShape)", text):
        return RunError(f"An image cannot be decoded: {REMEDY}. Received: {text}")
    return None


def named(places: Sequence[str]) -> str:
    """Name some of many files, each with what is wrong with it."""
    some = ", ".join(f"{place} ({_state(place)})" for place in places[:NAMED])
    more = len(places) - NAMED
    return f"{some} and {more:,} more" if more > 0 else some


def images(number: int) -> str:
    """Write a number with its noun."""
    return "1 image" if number == 1 else f"{number:,} images"


def _state(place):
    if re.match(r"(image|record) \d+ (in|of) ", place):
        return "damaged"
    try:
        with open(place, "rb") as file:
            start = file.read(HEADER)
    except OSError as error:
        return error.strerror
    return fault(start) or _SIGNATURES[start[:2]]


def _looks_whole(image):
    """Return whether an encoded image has its end, which one cut short lacks."""
    length = tf.strings.length(image)

    def end(count: int) -> Tensor:
        return tf.strings.substr(image, tf.maximum(length - count, 0), count)

    jpeg = tf.io.is_jpeg(image) & (end(2) == b"\xff\xd9")
    return jpeg | (end(len(_PNG_END)) == _PNG_END)


def evaluation_batches(
    split: Split,
    recipe: Any,
    *,
    image_size: int,
    batch_size: int,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Return centre crops in order, padded to full batches, as many for every worker.

    Args:
        split: Images to read.
        recipe: A `Recipe` or `Preprocessing`, of which `test_crop`,
            `test_interpolation`, `mean`, `std` and, where it has one, `exif` count.
        image_size: Height and width of the images.
        batch_size: Images per replica.
        worker, workers: Number of this process among how many; worker w takes images
            w, w + W, ….
        replicas: Replicas of a worker; the number of its batches is a multiple of it.

    Returns:
        A data set of `(images, labels, weights)`, float32 `(batch_size,
        image_size, image_size, 3)`, int32 and float32 `(batch_size,)`. Weights are 1,
        and 0 for padding and for what was skipped as unreadable.

    Raises:
        InputError: If mean and deviation are unknown.
    """
    mean, std = statistics(split, recipe)
    if getattr(recipe, "exif", None) == "apply":
        split = dataclasses.replace(split, upright=True)
    rounds = -(-split.count // (workers * batch_size * replicas))
    size = image_size

    def prepared(image: Tensor) -> Tensor:
        crop, method = recipe.test_crop, recipe.test_interpolation
        return normalise(centre_crop(image, size, crop, method), mean, std)

    read = guarded(split, prepared)

    def sample(index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        image, label, itself = read(tf.minimum(index, split.count - 1))
        weight = tf.cast(itself & (index < split.count), tf.float32)
        return image, tf.cast(label, tf.int32), weight

    last = workers * rounds * batch_size * replicas
    dataset = tf.data.Dataset.range(worker, last, workers)
    return finished(batched(dataset, sample, split, batch_size), split)


def statistics(split: Split, recipe: Any) -> tuple[Sequence[float], Sequence[float]]:
    """Return `(mean, std)` per channel, of the recipe or else of the data.

    Raises:
        InputError: If neither knows them.
    """
    mean = split.mean if recipe.mean is None else recipe.mean
    std = split.std if recipe.std is None else recipe.std
    if mean is None or std is None:
        raise InputError(
            "Neither recipe nor data say how images are normalised: set mean and std, "
            "three numbers each, of images in 0…1. Received: "
            f"mean={mean or 'none'}, std={std or 'none'}, data {split.name}"
        )
    return mean, std


def threads(in_memory: bool) -> int:
    """Return as many as the processor has; more where some wait for the disk."""
    return (os.cpu_count() or 1) * (1 if in_memory else 2)


def batched(
    dataset: tf.data.Dataset, sample: Callable, split: Split, batch_size: int
) -> tf.data.Dataset:
    """Apply `sample` to a data set's elements and join them to full batches."""
    return dataset.map(sample, num_parallel_calls=threads(split.store.in_memory)).batch(
        batch_size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE
    )


def finished(dataset: tf.data.Dataset, split: Split) -> tf.data.Dataset:
    """Prefetch a data set, whose order stays, with the threads that it needs."""
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return in_order(dataset, None if split.store.in_memory else threads(False))


def in_order(
    dataset: tf.data.Dataset, own_threads: int | None = None
) -> tf.data.Dataset:
    """Return a data set that keeps its order and is not divided among workers again.

    Args:
        dataset: This worker's elements.
        own_threads: Number of threads that only this data set uses; `None`: it takes
            those that all share.
    """
    options = tf.data.Options()
    options.deterministic = True
    # Workers divide the images here already.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.OFF
    )
    if own_threads is not None:
        options.threading.private_threadpool_size = own_threads
    return dataset.with_options(options)


def read(
    batches: tf.data.Dataset, remedy: str = "replace or remove it"
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the batches of `evaluation_batches` as arrays.

    Args:
        batches: Data set of batches.
        remedy: Advice about an image that cannot be read.

    Raises:
        InputError: If an image cannot be read or decoded.
    """
    try:
        yield from batches.as_numpy_iterator()
    except tf.errors.OpError as error:
        found = reason(error)
        if found is None:
            raise
        place = str(found).rpartition("Received: ")[2]
        raise InputError(
            f"An image cannot be read or decoded: {remedy}. Received: {place}"
        ) from error
