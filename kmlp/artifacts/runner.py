"""An artifact as a function of images, whatever runs it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kmlp.console import first_line
from kmlp.errors import RunError

Answers = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Runner:
    """An artifact's `serving_default` as a function of image arrays.

    It takes `(N, H, W, C)` with any N, goes through it in the artifact's own batch
    where that is fixed, and gives `{name: array}`.

    Attributes:
        run: Function of one batch.
        input_shape: Shape with the batch; `None` where a size is free.
        input_dtype: NumPy's type of the input.
        output_shapes: Shapes by name.
        tensors: Of a SavedModel, `run` with tensors in and out, through which
            TensorFlow takes derivatives; `None` of TFLite, which has none.
    """

    run: Callable[[np.ndarray], Answers]
    input_shape: tuple
    input_dtype: np.dtype
    output_shapes: dict[str, tuple]
    tensors: Callable | None = None

    def __call__(self, images: Any) -> Answers:
        images = np.asarray(images, self.input_dtype)
        try:
            return self._run(images)
        except (RuntimeError, ValueError, tf.errors.OpError) as error:
            raise RunError(
                "This network does not run: it is damaged, or uses what is not "
                f"installed here; export it again. ({first_line(error)[:300]})"
            ) from error

    def _run(self, images):
        if self.input_shape[0] is None:
            return self.run(images)
        parts = [self.run(batch) for batch in in_batches(images, self.input_shape[0])]
        return {
            key: np.concatenate([part[key] for part in parts])[: len(images)]
            for key in parts[0]
        }


def in_batches(images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return batches of one size; the last is filled up with the first images."""
    count = -(-len(images) // batch_size)
    shape = images.shape[1:]
    filled = np.resize(images, (count * batch_size, *shape))
    return filled.reshape(count, batch_size, *shape)
