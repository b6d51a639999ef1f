"""Models of the shared table, exported once for all tests."""

import functools
import pathlib
import tempfile

import cases
import keras

import kmlp

FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def built(case, **overrides):
    """A model of the table, the same in every run."""
    keras.utils.set_random_seed(0)
    return cases.build(case, **overrides)


@functools.cache
def saved_model(case, merge=True, dense=None):
    """The folder of a version."""
    path = pathlib.Path(FOLDER.name, f"{case}_{merge}_{dense}")
    return kmlp.export.saved_model(built(case), path, merge=merge, dense=dense)


@functools.cache
def tflite(case, merge=True, dense=None):
    """The path of a float32 file."""
    path = pathlib.Path(FOLDER.name, f"{case}_{merge}_{dense}.tflite")
    return kmlp.export.tflite(
        built(case), path, merge=merge, overwrite=True, dense=dense
    )


def expected(case, images):
    """The outputs of the train form."""
    return cases.run(built(case), images, training=False)
