"""A source made ready: what fits is read into memory and checked."""

import dataclasses
import os
from typing import Any

import tensorflow as tf

from kmlp.data.decode import decode
from kmlp.data.images import Memory, Source
from kmlp.data.reading import REMEDY, images, named, read_all
from kmlp.errors import InputError
from kmlp.training.input.order import WHOLE_CROPS
from kmlp.training.input.pipeline import square
from kmlp.typing import Config

MEMORY_SHARE = 1 / 4
LEAST_MEMORY = 4 * 2**30  # bytes, where the system does not tell


def load(source: Source, recipe: Any) -> Source:
    """Read a source's images into memory where they fit, and check them.

    They fit where all files take at most a quarter of the machine's memory. Then each
    is decoded once. Where the recipe shows windows of the whole image, images are
    kept as they are after resizing; else encoded, as only parts are decoded.

    Args:
        source: Source as it was opened.
        recipe: A `ClassificationRecipe`; its `crop`, `interpolation` and `image_size`
            count.

    Returns:
        A `Source`, without what cannot be decoded where that is to be skipped. A
        source that does not fit is returned as it is: its images are read, and
        checked, while training.

    Raises:
        InputError: If images cannot be decoded, a class has none that can, or there
            is nothing to train on.
    """
    if source.train is None:
        raise InputError(f"There are no images to train on. Received: {source.name}")
    splits = source.splits
    if sum(split.store.size_in_bytes() for split in splits.values()) > allowance():
        return source
    loaded: Config = {}
    places, lost = [], []
    for name, split in splits.items():
        keep = _kept(recipe, split) if name == "train" else _checked
        if split.store.in_memory and keep is _checked:
            loaded[name] = split
            continue
        if not split.store.in_memory:
            print(f"Reading {images(split.count)}: {split.name}", flush=True)
        kept, labels, failed = read_all(split, keep)
        if failed.size:
            places += [split.store.place(index) for index in failed]
            empty = set(range(len(source.class_names))) - set(labels.tolist())
            lost += [f"{split.name}/{source.class_names[label]}" for label in empty]
        with tf.device("CPU"):
            store = Memory(tf.constant(kept), labels)
        loaded[name] = dataclasses.replace(split, store=store)
    if not places:
        return dataclasses.replace(source, **loaded)
    if source.validation.on_corrupt == "stop":
        raise InputError(
            f"{images(len(places))} cannot be decoded: {REMEDY}. "
            f"Received: {named(places)}"
        )
    if lost:
        raise InputError(
            "No image of a class can be decoded: replace what is damaged. "
            f"Received: {sorted(lost)[0]!r}, {named(places)}"
        )
    print(f"Skipped {images(len(places))}: {named(places)}")
    return dataclasses.replace(source, skipped=tuple(places), **loaded)


def allowance() -> float:
    """Return how many bytes of images may be kept in memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows does not tell it so
        memory = LEAST_MEMORY
    return memory * MEMORY_SHARE


def _kept(recipe, split):
    size = recipe.image_size
    if recipe.crop not in WHOLE_CROPS or 3 * split.count * size**2 > allowance():
        return _checked
    return lambda image: square(
        decode(image, split.upright), size, recipe.interpolation
    )


def _checked(image):
    with tf.control_dependencies([decode(image)]):
        return tf.identity(image)
