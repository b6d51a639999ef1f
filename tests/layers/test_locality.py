"""Locality Injection as a layer of its own."""

import keras
import numpy as np
import pytest
from cases import randomize, relative_error, run

from kmlp.layers import SetSharingLinear
from kmlp.layers.layer import host

TOLERANCE = 1e-5
CONFIGURATIONS = [
    {"share_sets": 1, "local_kernels": (1, 3)},
    {"share_sets": 4, "local_kernels": (1, 3), "norm": "batch", "use_bias": False},
    {"share_sets": 2, "local_kernels": ((1, 5), (3, 3)), "norm": "batch"},
    {"share_sets": 4, "norm": "batch", "use_bias": False},
    {"share_sets": 1, "local_kernels": (3,), "use_bias": False, "block_size": (2, 3)},
    {"share_sets": 1, "local_kernels": ((1, 3),), "block_size": (1, 6)},
    {"share_sets": 1, "local_kernels": ((3, 1),), "block_size": (4, 1)},
    {"share_sets": 1, "local_kernels": ((3, 1),), "block_size": (2, 1)},
    {"share_sets": 1, "block_size": (4, 1)},
    {"share_sets": 2, "block_size": (4, 1), "local_kernels": ((3, 1),)},
    {"share_sets": 8, "use_bias": False},
]


def built(configuration, shape=(None, 4, 6, 8)):
    layer = SetSharingLinear(**configuration)
    layer.build(shape)
    randomize(layer)
    return layer


def written_out(x, kernel, bias, block):
    """Eq. 2 block by block and channel by channel; channel c uses set c mod S."""
    (h, w), sets = block, len(kernel)
    outputs = np.zeros_like(x)
    for top in range(0, x.shape[1], h):
        for left in range(0, x.shape[2], w):
            for c in range(x.shape[3]):
                tile = x[:, top : top + h, left : left + w, c].reshape(len(x), -1)
                mixed = tile @ kernel[c % sets].T + bias[c % sets]
                mixed = mixed.reshape(len(x), h, w)
                outputs[:, top : top + h, left : left + w, c] = mixed
    return outputs


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_the_equivalent_kernel_is_the_layer(configuration):
    layer = built(configuration)
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 8)).astype("float32")
    expected = run(layer, x, training=False)
    kernel, bias = layer.equivalent_kernel(host)
    bias = np.zeros(kernel.shape[:2]) if bias is None else bias
    literal = written_out(x.astype("float64"), kernel, bias, layer.partition.block_size)
    assert relative_error(literal, expected) <= TOLERANCE
    merged = layer.merged()
    assert merged.local_kernels == ()
    assert merged.norm is None
    assert relative_error(run(merged, x), expected) <= TOLERANCE


@pytest.mark.parametrize("configuration", CONFIGURATIONS[:3])
def test_the_equivalent_kernel_is_the_same_on_tensors(configuration):
    layer = built(configuration)
    for tensor, array in zip(layer.equivalent_kernel(), layer.equivalent_kernel(host)):
        assert relative_error(keras.ops.convert_to_numpy(tensor), array) <= 1e-6


def test_gradients_reach_convolutions_and_norms_through_the_kernel():
    """A penalty on the equivalent kernel trains every branch."""
    layer = built(CONFIGURATIONS[1])

    @keras.saving.register_keras_serializable("tests")
    class Penalised(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = layer

        def call(self, x):
            kernel, bias = self.inner.equivalent_kernel()
            self.add_loss(keras.ops.sum(kernel**2) + keras.ops.sum(bias**2))
            return x

    model = Penalised()
    model.compile(keras.optimizers.SGD(1e-3))
    x = np.zeros((2, 4, 6, 8), "float32")
    model(x)
    before = {w.path: keras.ops.convert_to_numpy(w) for w in layer.trainable_weights}
    losses = [model.train_on_batch(x) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]
    for weight in layer.trainable_weights:
        moved = np.abs(keras.ops.convert_to_numpy(weight) - before[weight.path]).max()
        assert moved > 1e-6, weight.path


def test_statistics_run_over_samples_groups_and_positions():
    layer = SetSharingLinear(2, norm="batch", use_bias=False)
    x = np.random.default_rng(0).normal(2, 3, size=(8, 3, 3, 4)).astype("float32")
    outputs = run(layer, x, training=True).reshape(-1, 2, 2)
    # Channels 0, 2 are set 0 and 1, 3 set 1: each set is standardised as a whole.
    assert np.abs(outputs.mean(axis=(0, 1))).max() < 1e-4
    assert np.abs(outputs.std(axis=(0, 1)) - 1).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "shape", "words"),
    [
        ({"share_sets": 3}, (None, 4, 6, 8), "share_sets=3"),
        ({}, (None, None, 6, 8), "known height and width"),
        ({"local_kernels": (4,)}, (None, 4, 6, 8), "odd"),
        ({"norm": "layer"}, (None, 4, 6, 8), "norm='layer'"),
        ({"local_kernels": ("3",)}, (None, 4, 6, 8), "local_kernels="),
    ],
)
def test_bad_arguments(arguments, shape, words):
    with pytest.raises(ValueError, match=words):
        SetSharingLinear(**arguments).build(shape)
