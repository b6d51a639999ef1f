"""How fresh networks start, against the published constructors' draws.

`reference/init.json` holds mean, standard deviation and largest magnitude of every
parameter over three seeds. Loaded as a published state, the deviations say what every
variable of ours should have.
"""

import json
import re

import keras
import numpy as np
import pytest
from cases import CASES, REFERENCE

import kmlp
from kmlp.analysis.complexity import shapes_only

with open(REFERENCE / "init.json") as file:
    _INIT = json.load(file)
PARAMETERS, BUFFERS = _INIT["parameters"], _INIT["buffers"]
SEEDS = 3  # the published constructor's


def mean(known):
    return known["mean"]


def deviation(known):
    """The standard deviation, below zero where the draw is uniform."""
    uniform = known["absmax"] < 1.85 * known["std"]
    return -known["std"] if uniform else known["std"]


def state_of(arch, figure):
    """A published state of constants: one figure of every array."""
    state = {
        name: np.full(known["shape"], figure(known), "float32")
        for name, known in PARAMETERS[arch].items()
    }
    for name, shape in BUFFERS[arch].items():
        one = figure is mean and name.endswith("running_var")
        state[name] = np.full(shape, float(one), "float32")
    return state


def values(model):
    return {
        variable.path.split("/", 1)[-1]: keras.ops.convert_to_numpy(variable)
        for variable in model.weights
        if "seed" not in variable.path
    }


@pytest.mark.parametrize("arch", PARAMETERS)
def test_start(arch):
    keras.utils.set_random_seed(0)
    model = kmlp.create_model(arch, input_shape=(224, 224, 3))
    ours = values(model)
    kmlp.load_published(model, state_of(arch, mean))
    means = values(model)
    kmlp.load_published(model, state_of(arch, deviation))
    ratios = {}
    for name, deviations in values(model).items():
        drawn, constant = ours[name], deviations == 0
        np.testing.assert_allclose(drawn[constant], means[name][constant], rtol=1e-6)
        # An array of ours may hold several of theirs.
        for known in np.unique(deviations[~constant]):
            part = drawn[deviations == known]
            check_draw(name, part, abs(known), uniform=known < 0)
            kind = re.sub(r"\d+", "#", name)
            ratios.setdefault(kind, []).append((part.size, part.std() / abs(known)))
    # All arrays of a kind together, which are enough for 3 %.
    for kind, rows in ratios.items():
        counts, found = np.array(rows).T
        together = np.sqrt((counts * found**2).sum() / counts.sum())
        assert abs(together - 1) < tolerance(counts.sum()), (kind, together)


LINEAR = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@pytest.mark.parametrize("case", CASES)
def test_every_linear_map_starts_by_a_rule_of_the_published(case):
    """Ablations and hybrids, too: nothing is left to Keras' own defaults."""
    family, arguments = CASES[case]
    with shapes_only():
        model = family(10, **arguments)
    maps = [layer for layer in model._flatten_layers() if isinstance(layer, LINEAR)]
    for layer in maps:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        start = layer.depthwise_initializer if depthwise else layer.kernel_initializer
        rule = type(start).__name__
        assert rule in ("FanInUniform", "RandomNormal", "VarianceScaling"), layer.path
        if rule == "VarianceScaling":
            assert (start.scale, start.mode) == (2.0, "fan_out"), layer.path
        if layer.use_bias and rule != "VarianceScaling":
            drawn = type(layer.bias_initializer).__name__
            assert drawn == ("FanInUniform" if rule == "FanInUniform" else "Zeros")
        if rule == "FanInUniform":
            shape = layer.kernel.shape
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            assert start.fan_in == fan_in, layer.path
    assert maps


def tolerance(count):
    """3 %, or four deviations of what the draws of both sides spread by."""
    return max(0.03, 4 * np.sqrt((1 + 1 / SEEDS) / (2 * count)))


def check_draw(name, drawn, deviation, uniform):
    count = drawn.size
    assert abs(drawn.std() / deviation - 1) < tolerance(count), name
    assert abs(drawn.mean()) < 4.5 * deviation / np.sqrt(count), name
    if count >= 300:
        # Uniform, with an edge, or normal and not cut at two deviations.
        reach = abs(drawn).max() / deviation
        assert reach < 1.8 if uniform else reach > 2.3, name
