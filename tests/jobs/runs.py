"""Runs as training leaves them, with models that cost nothing to train."""

import json

import cases
import keras
import numpy as np
import tensorflow as tf

import kmlp
from kmlp.data.decode import centre_crop, normalise
from kmlp.data.sources import NAME, open_source

SIZE = 16


def resmlp():
    """A small ResMLP with random weights."""
    keras.utils.set_random_seed(0)
    model = kmlp.ResMLP(
        10, (SIZE, SIZE, 3), patch_size=4, width=16, depth=2, local_kernels=(3,)
    )
    cases.randomize(model)
    return model


def reader(hidden=64):
    """A model of Keras' own layers that reads digits: random features, solved."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(inputs)
    x = keras.layers.Dense(hidden, activation="relu", name="features")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="answer")(x), name="reader")
    source = open_source(None)
    images = prepared(source.train, 600)
    features = keras.Model(inputs, x).predict(images, verbose=0)
    targets = np.eye(10)[source.train.labels[:600]] - 0.1
    gram = features.T @ features + 10 * np.eye(hidden)
    kernel = np.linalg.solve(gram, features.T @ targets)
    model.get_layer("answer").set_weights([kernel, np.zeros(10)])
    return model


def prepared(split, count):
    """Images of the digits as the models here take them."""
    dataset = tf.data.Dataset.from_tensor_slices(split.store.images[:count]).map(
        lambda image: normalise(
            centre_crop(image, SIZE, 1.0, "bilinear"), split.mean, split.std
        )
    )
    return np.concatenate(list(dataset.batch(count).as_numpy_iterator()))


def sabotage(model, factor=1e5):
    """Scales one feature up and its weights down: equal, but hard to quantise."""
    first, second = model.get_layer("features"), model.get_layer("answer")
    (kernel1, bias1), (kernel2, bias2) = first.get_weights(), second.get_weights()
    kernel1[:, 3] *= factor
    bias1[3] *= factor
    kernel2[3] /= factor
    first.set_weights([kernel1, bias1])
    second.set_weights([kernel2, bias2])
    return model


def write_run(folder, model, **data):
    """A version folder with a checkpoint and what its run wrote of its images."""
    folder.mkdir(parents=True)
    model.save(folder / "trained.keras")
    source = open_source(None)
    written = {
        "recipe": {"test_crop": 1.0, "test_interpolation": "bilinear"},
        "data": {
            "name": NAME,
            "class_names": list(source.class_names),
            "image_size": SIZE,
            "mean": source.mean,
            "std": source.std,
            **data,
        },
    }
    (folder / "recipe.json").write_text(json.dumps(written))
    return folder


def write_image(path, seed=0):
    """A file of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 24, 3), np.uint8)
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels).numpy())


def write_folder(root, *, classes=("cat", "dog"), count=1):
    """Training and validation images by class."""
    for split in ("train", "val"):
        for name in classes:
            for index in range(count):
                write_image(root / split / name / f"{index}.jpg", seed=index)
    return root
