"""Live activations: small graphs by hand, and what XLA sets aside."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import pytest
from keras import layers, ops

import kmlp
from kmlp.layers.layer import gelu


def chain(x):
    return layers.Dense(2)(layers.Dense(8)(x))


def residual(x):
    return x + layers.Dense(4)(layers.Dense(16)(x))


def written_gelu(x):
    return layers.Dense(1)(Gelu()(layers.Dense(16)(x)))


def reshaped(x):
    x = layers.Dense(8)(x)
    x = layers.Dropout(0.5)(ops.reshape(x, (-1, 2, 4)))
    return layers.Dense(4)(layers.Flatten()(x))


def transposed(x):
    x = ops.reshape(layers.Dense(16)(x), (-1, 4, 4))
    return layers.Dense(1)(ops.transpose(x, (0, 2, 1)))


def read_twice(x):
    x = layers.Dense(8)(x)
    return layers.Concatenate()([ops.relu(x), layers.Dense(1)(x)])


def two_outputs(x):
    x = layers.Dense(8)(x)
    return x, layers.Dense(2)(layers.Dense(16)(x))


class Gelu(keras.layers.Layer):
    def call(self, x):
        return gelu(x)


# Values of four bytes that are alive at once at the peak, for an input of 4.
BY_HAND = {
    "chain": (chain, 4 + 8),
    # The input waits for the sum: beside the hidden values and the branch's.
    "residual": (residual, 4 + 16 + 4),
    # In the hidden values' place, whatever GELU is written with.
    "gelu": (written_gelu, 4 + 16),
    # Reshaping and dropout take nothing.
    "reshaped": (reshaped, 4 + 8),
    # A copy beside its original.
    "transposed": (transposed, 16 + 16),
    # ReLU cannot take its input's place, as the linear map still reads it.
    "read_twice": (read_twice, 8 + 1 + 9),
    # The first output stays to the end.
    "two_outputs": (two_outputs, 8 + 16 + 2),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_small_graphs_by_hand(name):
    graph, values = BY_HAND[name]
    inputs = keras.Input((4,))
    model = keras.Model(inputs, graph(inputs))
    found = kmlp.profile(model)
    assert found.peak_activation_bytes == 4 * values
    assert max(row.memory for row in found.layers) == 4 * values
    assert found.weight_bytes == 4 * model.count_params()
    assert found.peak_memory == found.weight_bytes + 4 * values
    many = kmlp.profile(model, batch=5)
    assert many.peak_activation_bytes == 5 * 4 * values
    assert (many.batch, many.weight_bytes) == (5, found.weight_bytes)
    assert many.activations == found.activations


@pytest.mark.parametrize(
    ("policy", "weight", "activations"),
    [
        ("float32", 4, 4 * (8 + 2)),
        ("float16", 2, 2 * (8 + 2)),
        ("bfloat16", 2, 2 * (8 + 2)),
        ("mixed_bfloat16", 4, 2 * (8 + 2)),
    ],
)
def test_bytes_follow_the_precision(policy, weight, activations):
    inputs = keras.Input((1,), dtype="float32")
    x = layers.Dense(8, dtype=policy)(inputs)
    model = keras.Model(inputs, layers.Dense(2, dtype=policy)(x))
    found = kmlp.profile(model)
    assert found.peak_activation_bytes == activations
    assert found.weight_bytes == weight * model.count_params()


def test_a_block_of_resmlp_by_hand():
    """Its peak is in the channel MLP: the map, four times as much, the result."""
    model = kmlp.ResMLP(5, (32, 32, 3), patch_size=4, width=48, depth=2)
    found = kmlp.profile(model)
    tokens = 8 * 8
    assert found.peak_activation_bytes == 4 * tokens * 48 * (1 + 4 + 1)
    rows = {row.name: row.memory for row in found.layers}
    # The image and its patches in order; the patches and their embedding.
    assert rows["patch_embed"] == 4 * max(2 * 32 * 32 * 3, tokens * (48 + 48))
    assert rows["block1_cross_channel"] == found.peak_activation_bytes


XLA = """
    import json
    import jax, keras, kmlp

    found = {}
    for name, model in {
        "resmlp": kmlp.ResMLP(5, (32, 32, 3), patch_size=4, width=48, depth=2),
        "repmlpnet": kmlp.merge(
            kmlp.RepMLPNet(
                5, (32, 32, 3), depths=(1, 1), widths=(32, 64), share_sets=(1, 4)
            )
        ),
    }.items():
        weights = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
        )
        images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")
        run = jax.jit(lambda *a: model.stateless_call(*a, training=False)[0])
        memory = run.lower(*weights, images).compile().memory_analysis()
        counted = kmlp.profile(model, batch=2).peak_activation_bytes
        found[name] = [memory.temp_size_in_bytes, counted]
    print(json.dumps(found))
"""


@pytest.mark.long
def test_xla_sets_aside_as_much():
    """Where images are small beside the maps, whose memory XLA never takes over.

    Without the fusions that hand whole subgraphs to a library of kernels: what is
    alive within those, XLA does not tell.
    """
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=",
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(XLA)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "Unknown flag in XLA_FLAGS" in done.stderr:
        pytest.skip("this XLA has no such fusions to switch off")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    ratios = {name: xla / counted for name, (xla, counted) in found.items()}
    assert all(0.99 <= ratio <= 1.05 for ratio in ratios.values()), ratios
