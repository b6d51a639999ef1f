"""What a backend's process times: inference and training steps of networks."""

import gc

import keras
import numpy as np
from keras import ops

from kmlp.analysis.complexity import profile
from kmlp.benchmarking.devices import inference
from kmlp.benchmarking.measuring import Contender
from kmlp.errors import InputError
from kmlp.merging import merge

LEARNING_RATE = 1e-4


class Networks:
    """Makes contenders; cases of one network and policy share its merged form.

    The merged form is what inference is timed of, the train form what training is.
    """

    def __init__(self):
        self._merged = {}

    def contender(self, case):
        """A case as a `Contender`, and figures of the form that is timed, by name."""
        if case.work == "training":
            model = case.source.model(case.policy)
            run = training_step(model, case)
        else:
            model = self._merged_form(case)
            answer = inference(model, case.xla)
            images = ops.convert_to_tensor(random_images(model, case))

            def run():
                return ops.convert_to_numpy(answer(images))

        shape = shape_of(model, case)
        counted = profile(model, shape)
        return Contender(case.source.name, case.batch, counted.macs, run), {
            "parameters": counted.trainable,
            "macs": counted.macs,
            "image_size": shape[:2],
        }

    def _merged_form(self, case):
        key = (case.source, case.policy)
        if key not in self._merged:
            self._merged[key] = merge(case.source.model(case.policy))
            gc.collect()  # the train form is part of cycles
        return self._merged[key]


def training_step(model, case):
    """A step of AdamW on one batch, by Keras' own `train_on_batch`.

    Raises:
        InputError: the network does not classify.
    """
    outputs = model.outputs
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise InputError(
            "A training step is of a network that classifies; --work inference takes "
            f"any. Received: {case.source.name!r}"
        )
    images = random_images(model, case)
    classes = outputs[0].shape[-1]
    targets = np.eye(classes, dtype="float32")[np.arange(case.batch) % classes]
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=case.xla,
    )

    def run():
        model.train_on_batch(images, targets)
        # The loss is known before the weights have moved.
        ops.convert_to_numpy(model.optimizer.iterations)

    return run


def shape_of(model, case):
    """`(H, W, C)` of the images that a model is timed on."""
    return tuple(case.source.input_shape or model.inputs[0].shape[1:])


def random_images(model, case):
    """A batch of images of normal values."""
    shape = (case.batch, *shape_of(model, case))
    return np.random.default_rng(0).standard_normal(shape, np.float32)
