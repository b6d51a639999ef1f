"""The embedded data: scikit-learn's 1797 handwritten digits of 8x8 pixels."""

import numpy as np
import sklearn.datasets
import sklearn.model_selection
import tensorflow as tf

from training.data import Images, Split, stored_size, to_uint8

VALIDATION_SHARE = 0.2


class Digits:
    """The digits, always split alike.

    Attributes:
        class_names: in the order of the labels.
    """

    class_names = tuple("0123456789")

    def load(self, size, on_corrupt=None):
        """The `Images`, enlarged for a model that sees `size`."""
        digits = sklearn.datasets.load_digits()
        stored = stored_size(size)
        images = digits.images[..., None] * (255 / digits.images.max())
        images = tf.image.resize(images, (stored, stored), method="bicubic")
        images = to_uint8(tf.repeat(images, 3, axis=-1)).numpy()
        train, validation, train_labels, validation_labels = (
            sklearn.model_selection.train_test_split(
                images,
                digits.target,
                test_size=VALIDATION_SHARE,
                stratify=digits.target,
                random_state=0,
            )
        )
        return Images(
            name="scikit-learn's handwritten digits",
            class_names=self.class_names,
            size=size,
            mean=(round(float(np.mean(train)) / 255, 4),) * 3,
            std=(round(float(np.std(train)) / 255, 4),) * 3,
            flip=False,
            train=Split(train_labels, train, None, stored),
            validation=Split(validation_labels, validation, None, stored),
        )
