"""One training step of every family against the published networks'.

`reference/*_gradients.npz` holds the published code's loss, gradients and moving
statistics in float64.
"""

import keras
import numpy as np
import pytest
from cases import REFERENCE, build_reference, reference

import kmlp

NAMES = ("repmlpnet", "resmlp", "convmlp", "msmlp", "smlpnet", "swin", "focal")
# Of the array's own largest, and of the network's largest where that is small.
TOLERANCE = 1e-3
# A step of that size, whose difference of weights is the gradient without rounding.
RATE = 1024.0


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_the_published_ones(name):
    arrays, _ = reference(f"{name}_small")
    step = dict(np.load(REFERENCE / f"{name}_gradients.npz"))
    images = arrays["case0/images"].astype("float32")
    model = build_reference(f"{name}_small", images.shape[1:])
    kmlp.load_published(model, REFERENCE / f"{name}_small.npz")
    before = values(model)
    model.compile(
        keras.optimizers.SGD(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=keras.backend.backend() == "jax",  # without, JAX takes minutes
    )
    loss = model.train_on_batch(images, step["labels"])
    after = values(model)
    assert abs(float(loss) / float(step["loss"]) - 1) < TOLERANCE

    published = dict(step_state(step, arrays))
    kmlp.load_published(model, published)
    expected = values(model)
    trained = {variable.path for variable in model.trainable_variables}
    largest = max(abs(expected[path]).max() for path in trained)
    for path, value in after.items():
        if path in trained:
            value = (before[path] - value) / RATE
            scale = max(abs(expected[path]).max(), TOLERANCE * largest)
        else:
            scale = abs(expected[path]).max()
        error = abs(value - expected[path]).max()
        assert error <= TOLERANCE * scale, (path, error / scale)


def step_state(step, arrays):
    """Gradients, and moving statistics after the step, under the published names."""
    for key, value in arrays.items():
        if key.startswith("state/"):
            name = key.removeprefix("state/")
            for kind in ("gradient", "after"):
                value = step.get(f"{kind}/{name}", value)
            yield name, value


def values(model):
    return {
        variable.path: keras.ops.convert_to_numpy(variable).astype("float64")
        for variable in model.weights
    }
