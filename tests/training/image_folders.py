"""Image folders and sources for tests, and ways to damage them."""

import numpy as np
import tensorflow as tf

from kmlp.data.images import Memory, Source, Split
from kmlp.data.pictures import KINDS


def write_image(path, *, size=(20, 24), channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, channels), np.uint8)
    png = path.suffix.lower() == ".png"
    encode = tf.io.encode_png if png else tf.io.encode_jpeg
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels).numpy())


def write_folder(root, *, classes=("cat", "dog"), splits=("train", "val"), count=3):
    for split in splits:
        for name in classes:
            for index in range(count):
                write_image(root / split / name / f"{index}.jpg", seed=index)
    return root


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


DAMAGES = {
    "damaged JPEG": ("bad.jpg", truncate),
    "damaged PNG": ("bad.png", truncate),
    "empty": ("bad.jpeg", lambda path: path.write_bytes(b"")),
    f"none of {KINDS}": (
        "bad.JPG",
        lambda path: path.write_text("not an image"),
    ),
}


def damage(folder, reason):
    name, spoil = DAMAGES[reason]
    write_image(folder / name.lower())
    path = (folder / name.lower()).rename(folder / name)
    spoil(path)
    return path


def numbered_source(count, size=8, *, validation=5, flip=False):
    """Every image holds its own number, and its label is the number mod 10."""

    def split(name, count):
        numbers = np.arange(count)
        images = np.zeros((count, size, size, 3), np.uint8)
        images[..., 0] = (numbers % 256)[:, None, None]
        images[..., 1] = (numbers // 256)[:, None, None]
        labels = (numbers % 10).astype("int32")
        zero, one = (0.0, 0.0, 0.0), (1 / 255,) * 3
        return Split(name, Memory(images, labels), zero, one)

    return Source(
        name="numbers",
        class_names=tuple("0123456789"),
        train=split("training", count),
        validation=split("validation", validation),
        flip=flip,
    )
