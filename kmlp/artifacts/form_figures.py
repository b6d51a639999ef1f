"""Running all forms of a model over the same images."""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from kmlp.artifacts.running import load_tflite
from kmlp.console import progress_bar

TRAINED, FLOAT32 = "trained", "float32"


@dataclasses.dataclass
class Figures:
    """How one form answers, beside float32 TFLite.

    Attributes:
        images: how many were shown.
        right: how many first answers were right.
        disagreements: how many first answers were others than float32's.
        largest_error: of a logit.
        largest_logit: of float32's, in magnitude.
    """

    images: int = 0
    right: int = 0
    disagreements: int = 0
    largest_error: float = 0.0
    largest_logit: float = 0.0

    def add(self, outputs, yardstick, right):
        """Takes a batch: this form's outputs, float32's, and the right ones."""
        answers = outputs.argmax(-1)
        self.images += len(outputs)
        self.right += int((answers == right).sum())
        self.disagreements += int((answers != yardstick.argmax(-1)).sum())
        error = np.abs(outputs - yardstick.astype("float64")).max(initial=0.0)
        self.largest_error = float(np.maximum(self.largest_error, error))
        largest = float(np.abs(yardstick).max(initial=0.0))
        self.largest_logit = max(self.largest_logit, largest)

    @property
    def top1(self):
        return self.right / self.images

    @property
    def relative_error(self):
        return self.largest_error / max(self.largest_logit, 1e-30)

    def drop(self, float32):
        """Points of top-1 that this form has less than float32."""
        return 100 * (float32.right - self.right) / self.images

    def as_json(self, float32):
        """For a report and an artifact's origin."""
        return {
            "top1": self.top1,
            "drop_points": self.drop(float32),
            "disagreements": self.disagreements,
            "largest_logit_error": _finite(self.largest_error),
            "relative_logit_error": _finite(self.relative_error),
        }


def compare(model, files, images):
    """Top-1 and logits of a trained model and of its TFLite files.

    Args:
        model: the train form, a functional `keras.Model`.
        files: `{name: path}` of TFLite files, `FLOAT32` among them.
        images: `kmlp.export.trial_images.Images`.

    Returns:
        `{name: Figures}`, `TRAINED` first.
    """
    trained = tf.function(lambda x: model(x, training=False))
    runs = {TRAINED: lambda batch: trained(tf.convert_to_tensor(batch))}
    for name, path in files.items():
        runs[name] = _first_output(load_tflite(path, num_threads=os.cpu_count()))
    figures = {name: Figures() for name in runs}
    with progress_bar(images.count, "img", desc="evaluating") as bar:
        for batch, right in images.batches():
            outputs = {n: np.asarray(run(batch), "float32") for n, run in runs.items()}
            for name, form in figures.items():
                form.add(outputs[name], outputs[FLOAT32], right)
            bar.update(len(batch))
    return figures


def _first_output(runner):
    return lambda batch: next(iter(runner(batch).values()))


def _finite(value):
    return value if math.isfinite(value) else None
