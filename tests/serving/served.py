"""Square models of the five families, exported once with all signatures."""

import functools
import pathlib
import tempfile

import cases
import keras

import kmlp
from kmlp.preprocessing import Preprocessing
from kmlp.serving.session import Session

SIZE = 32
SMALL = "resmlp_local"
FAMILIES = ("repmlpnet", SMALL, "convmlp", "msmlp_mix_shift", "smlpnet")
CLASS_NAMES = tuple(f"Klasse „{number}“" for number in range(10))
PREPROCESSING = Preprocessing(
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    image_size=SIZE,
    test_crop=0.9,
    test_interpolation="bicubic",
    class_names=CLASS_NAMES,
)
FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def model(case=SMALL, **overrides):
    """The same in every run."""
    keras.utils.set_random_seed(0)
    return cases.build(case, input_shape=(SIZE, SIZE, 3), **overrides)


@functools.cache
def version(case=SMALL):
    """The folder of a version."""
    path = pathlib.Path(FOLDER.name, case)
    return kmlp.export.saved_model(model(case), path, preprocessing=PREPROCESSING)


@functools.cache
def session(case=SMALL):
    return Session(version(case))
