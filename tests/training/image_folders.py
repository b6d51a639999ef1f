"""Image folders for tests, and ways to damage them."""

import numpy as np
import tensorflow as tf


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
    "neither JPEG nor PNG": ("bad.JPG", lambda path: path.write_text("not an image")),
}


def damage(folder, reason):
    name, spoil = DAMAGES[reason]
    write_image(folder / name.lower())
    path = (folder / name.lower()).rename(folder / name)
    spoil(path)
    return path
