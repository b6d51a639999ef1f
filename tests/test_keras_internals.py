"""Private names of Keras: each still does what the library uses it for."""

import threading

import keras
import numpy as np
import pytest

import kmlp
from kmlp import keras_internals
from kmlp.budget import Budget
from kmlp.errors import InputError


def model():
    inputs = keras.Input((4,), name="x")
    x = keras.layers.Dense(3, name="first")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="second")(x))


def test_flat_layers_reach_all_parts():
    layer = kmlp.layers.ChannelMLP(2, norm="layer")
    layer.build((None, 2, 2, 4))
    assert keras_internals.flat_layers(layer)[0] is layer
    parts = keras_internals.flat_layers(layer, include_self=False)
    assert {layer.fc1, layer.fc2} <= set(parts)
    nested = keras.Sequential([keras.Sequential([layer])])
    inner = keras_internals.flat_layers(nested, include_self=False, recursive=False)
    assert layer not in inner
    assert layer in keras_internals.flat_layers(nested)


def test_the_recorded_graph():
    own = model()
    depths = keras_internals.nodes_by_depth(own)
    names = [n.operation.name for d in sorted(depths) for n in depths[d]]
    assert names == ["second", "first", "x"]
    assert keras_internals.operation_of(own.output).name == "second"
    assert keras_internals.history_of(np.zeros(2)) is None
    assert keras_internals.operation_of(np.zeros(2)) is None


def test_own_variables_leave_those_of_parts_out():
    layer = kmlp.layers.ChannelMLP(2, layer_scale=0.1)
    layer.build((None, 2, 2, 4))
    own = keras_internals.own_variables(layer)
    assert 0 < len(own) < len(layer.weights)


def test_what_no_file_holds():
    dropout = keras.layers.Dropout(0.5)
    (state,) = keras_internals.random_states(dropout)
    assert state.name == "seed_generator_state"
    named = {"output_shape": (3,), "mask": None, "arguments": {"axis": 1}}
    layer = keras.layers.Lambda(abs, **named)
    found = keras_internals.lambda_arguments(layer)
    assert found == {"function": abs, **named}


def test_a_graph_and_a_call_of_its_own():
    class Own(keras.Model):
        def call(self, x):
            return x

    x = keras.Input((4,))
    assert keras_internals.is_graph(model())
    assert keras_internals.is_graph(keras.Sequential([keras.layers.Dense(2)]))
    assert not keras_internals.is_graph(Own(x, x))
    assert not keras_internals.is_graph(keras.layers.Dense(2))


def test_weights_are_counted_before_they_are_made(tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(bytes(100))
    original = keras.Layer.add_weight

    def build(width, count=1):
        for _ in range(count):
            keras.layers.Dense(width).build((None, 1000))

    with keras_internals.weights_within(Budget(path), 1):
        build(10)
    for width, count, words in (
        (10**6, 1, r"declares 4\.0 GB \(with a weight \(1000, 1000000\) of dense"),
        (1, 40, "more than 66 weights and holds 1 arrays"),
    ):
        within = keras_internals.weights_within(Budget(path), 1)
        with pytest.raises(InputError, match=words), within:
            build(width, count)
        assert keras.Layer.add_weight is original
    # Another thread is another user.
    with keras_internals.weights_within(Budget(path), 1):
        other = threading.Thread(target=build, args=(1, 40))
        other.start()
        other.join()
        build(10)


def test_parts_of_a_built_layer_are_exchanged():
    layer = kmlp.layers.ChannelMLP(2)
    layer.build((None, 2, 2, 4))
    with keras_internals.parts_unlocked(layer) as tracker:
        old = layer.fc1
        tracker.untrack(old)
        layer.fc1 = keras.layers.Dense(8)
    assert old not in keras_internals.flat_layers(layer)


def test_averages_and_decay_of_an_optimizer():
    own = model()
    optimizer = keras.optimizers.AdamW(weight_decay=0.1, use_ema=True)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(own.trainable_variables)
    pairs = keras_internals.averaged_pairs(optimizer)
    assert [v.path for v, _ in pairs] == [v.path for v in own.trainable_variables]
    for index, variable in enumerate(own.trainable_variables):
        assert keras_internals.variable_index(optimizer, variable) == index
        kernel = variable.name == "kernel"
        assert keras_internals.decays(optimizer, variable) == kernel
    before = own.layers[1].kernel.numpy()
    assert not keras_internals.decay_weights(optimizer, own.trainable_variables)

    class Own(keras.optimizers.SGD):
        def _apply_weight_decay(self, variables):
            variables[0].assign(variables[0] * 0)

    assert keras_internals.decay_weights(Own(), own.trainable_variables)
    assert np.abs(before).max() > 0 == np.abs(own.layers[1].kernel.numpy()).max()


def test_a_monitored_value_is_compared():
    callback = keras_internals.MonitorCallback("val_accuracy", "max")
    callback.set_model(model())
    keras_internals.choose_comparison(callback)
    assert callback.monitor_op is not None


def test_scopes_and_state():
    with keras_internals.AutocastScope("float16"):
        assert keras_internals.global_state.get_global_attribute("no such") is None
    assert not keras_internals.stateless()
    with keras.StatelessScope():
        assert keras_internals.stateless()
