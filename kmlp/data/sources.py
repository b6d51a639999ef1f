"""The embedded data: scikit-learn's 1797 handwritten digits of 8x8 pixels."""

import numpy as np

from kmlp.data.images import Memory, Source, Split
from kmlp.errors import InputError

NAME = "scikit-learn's handwritten digits"
VALIDATION_SHARE = 0.2


def digits():
    """The digits as a `Source`, always split alike."""
    # Only the embedded data need it.
    import sklearn.datasets
    import sklearn.model_selection

    data = sklearn.datasets.load_digits()
    images = np.rint(data.images[..., None] * (255 / data.images.max()))
    train, validation, train_labels, validation_labels = (
        sklearn.model_selection.train_test_split(
            np.repeat(images, 3, axis=-1).astype("uint8"),
            data.target,
            test_size=VALIDATION_SHARE,
            stratify=data.target,
            random_state=0,
        )
    )
    statistics = {
        "mean": (round(float(np.mean(train)) / 255, 4),) * 3,
        "std": (round(float(np.std(train)) / 255, 4),) * 3,
    }
    return Source(
        name=NAME,
        class_names=tuple("0123456789"),
        train=Split(NAME, Memory(train, train_labels), **statistics),
        validation=Split(NAME, Memory(validation, validation_labels), **statistics),
        flip=False,
    )


PREFIX = "tfds:"


def open_source(spec=None, *, data_dir=None, download=False, on_corrupt="stop"):
    """A data set to train on: listed, not read.

    Args:
        spec: a folder of images, `tfds:NAME[/CONFIG]`, or `None`: the embedded digits.
        data_dir: where TensorFlow Datasets keeps its sets; `None`: its default.
        download: whether a set that is not there is fetched.
        on_corrupt: `"stop"` or `"skip"` where images cannot be decoded.

    Returns:
        A `Source`; `load` makes it ready.

    Raises:
        InputError: no such data, or in no layout that is known.
    """
    if spec is None:
        return digits()
    if str(spec).startswith(PREFIX):
        from kmlp.data.named import named_set

        name = str(spec).removeprefix(PREFIX)
        return named_set(name, data_dir, download=download, on_corrupt=on_corrupt)
    from kmlp.data.folders import image_folder

    try:
        return image_folder(spec, on_corrupt)
    except OSError as error:  # no permission, a lost disk
        raise InputError(f"--data: {error}") from error
