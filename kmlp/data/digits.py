"""The embedded data: scikit-learn's 1797 handwritten digits of 8x8 pixels."""

import numpy as np
import sklearn.datasets
import sklearn.model_selection

from kmlp.data.images import Memory, Source, Split

NAME = "scikit-learn's handwritten digits"
VALIDATION_SHARE = 0.2


def digits():
    """The digits as a `Source`, always split alike."""
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
