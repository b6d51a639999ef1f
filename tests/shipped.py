"""The network that comes with kmlp, and photographs that it has never seen."""

import functools

import numpy as np
from cases import REFERENCE, run
from PIL import Image

import kmlp

NAME = "smlpnet_xs.kmlp_cifar10"
# The first ten of each class of CIFAR-10's test images.
FOLDER = REFERENCE / "photos" / "test"


@functools.cache
def network():
    """Not to be changed: it is the same for all tests."""
    return kmlp.create_model(NAME)


@functools.cache
def files():
    return sorted(FOLDER.glob("*/*.jpg"))


@functools.cache
def photos():
    """Images `(100, 32, 32, 3)` as the network takes them, and their labels."""
    known = network().preprocessing
    pixels = np.stack([np.asarray(Image.open(path)) for path in files()])
    images = (pixels.astype("float32") / 255 - known.mean) / known.std
    labels = [known.class_names.index(path.parent.name) for path in files()]
    return images.astype("float32"), np.array(labels)


@functools.cache
def logits():
    return run(network(), photos()[0], training=False)


def top1(outputs):
    """Percent of the photographs."""
    return 100 * np.mean(np.argmax(outputs, -1) == photos()[1])
