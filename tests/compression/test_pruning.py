"""Pruning: what is masked, when, and that it stays so."""

import subprocess
import sys
from pathlib import Path

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf

import kmlp
from kmlp.analysis.linear import linear_layers
from kmlp.compression import Pruning
from kmlp.compression.pruning import Schedule, block_mask, unstructured_mask
from kmlp.compression.tfmot import import_tfmot

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {"patch mixing": 0.9, "channel": 0.5}
BATCH = 4


def merged(case="resmlp_local", **overrides):
    return kmlp.merge(cases.build(case, **overrides))


def compiled(model=None, **arguments):
    model = model or merged()
    model.compile(
        keras.optimizers.Adam(0.01, **arguments),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=False,
        jit_compile=False,
    )
    return model


def fit(model, *callbacks, steps=6, epochs=1, **arguments):
    images = cases.images(model, steps * BATCH)
    labels = np.arange(len(images)) % 10
    return model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        callbacks=list(callbacks),
        verbose=0,
        **arguments,
    )


def kernels(model):
    """`{name: (LinearLayer, array)}`."""
    return {
        linear.name: (linear, keras.ops.convert_to_numpy(linear.kernel))
        for linear in linear_layers(model)
    }


def zeros(model):
    """`{name: number of zeros}` of all kernels."""
    return {
        name: int((array == 0).sum()) for name, (_, array) in kernels(model).items()
    }


def expected_zeros(model, targets, share=1.0):
    """The number that a sparsity means, to the weight."""
    return {
        name: array.size - round(array.size * (1 - share * targets.get(linear.kind, 0)))
        for name, (linear, array) in kernels(model).items()
    }


class Watch(keras.callbacks.Callback):
    """What the model holds after each batch, and when validation begins."""

    def __init__(self):
        super().__init__()
        self.batches, self.validated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(zeros(self.model))

    def on_test_begin(self, logs=None):
        self.validated.append(zeros(self.model))


def test_a_mask_keeps_the_largest_to_the_weight():
    weights = np.random.default_rng(0).normal(size=(3, 7, 11)).astype("float32")
    for sparsity in (0.1, 0.5, 0.9, 0.99):
        mask = unstructured_mask(tf.constant(weights), sparsity).numpy()
        kept = round(weights.size * (1 - sparsity))
        assert mask.sum() == kept
        assert np.abs(weights[mask == 1]).min() > np.abs(weights[mask == 0]).max()


@pytest.mark.parametrize("shape", [(3, 8, 12), (2, 5, 10), (1, 4, 7)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_block_mask_keeps_the_two_largest_of_four(shape, axis):
    weights = np.random.default_rng(0).normal(size=shape).astype("float32")
    mask = block_mask(tf.constant(weights), (2, 4), axis).numpy()
    assert mask.shape == shape
    rows = np.moveaxis(np.abs(weights), axis, -1).reshape(-1, shape[axis])
    masks = np.moveaxis(mask, axis, -1).reshape(-1, shape[axis])
    for start in range(0, shape[axis], 4):
        block, kept = rows[:, start : start + 4], masks[:, start : start + 4]
        number = min(2, block.shape[1])
        largest = np.sort(block, axis=1)[:, -number:]
        assert (kept.sum(axis=1) == number).all()
        np.testing.assert_array_equal(
            np.sort(block[kept == 1].reshape(-1, number), axis=1), largest
        )


@pytest.mark.parametrize("kind", ["polynomial", "constant"])
def test_the_schedule_is_tfmots(kind):
    ours = Schedule(
        kind, 0.8, initial=0.2, begin_step=10, end_step=70, frequency=15, power=3
    )
    theirs = import_tfmot().sparsity.keras
    if kind == "constant":
        theirs = theirs.ConstantSparsity(0.8, 10, 70, 15)
    else:
        theirs = theirs.PolynomialDecay(0.2, 0.8, 10, 70, 3, 15)
    due = []
    for step in range(100):
        position = ours.position(step)
        if position == step:
            due.append(step)
        if position is not None:
            assert ours(position) == float(theirs(position)[1])
    # tfmot is done where its frequency says so, we are at the end.
    assert due == [step for step in range(100) if bool(theirs(step)[0])]
    assert due == [10, 25, 40, 55, 70]
    uneven = Schedule(
        kind, 0.8, initial=0.2, begin_step=10, end_step=65, frequency=15, power=3
    )
    assert [s for s in range(100) if uneven.position(s) == s] == [10, 25, 40, 55, 65]
    assert uneven(65) == pytest.approx(0.8)


def test_the_polynomial_by_hand():
    schedule = Schedule(
        "polynomial", 0.9, initial=0.0, begin_step=0, end_step=10, frequency=1, power=3
    )
    assert [schedule(step) for step in (0, 5, 10)] == pytest.approx(
        [0.0, 0.9 - 0.9 * 0.5**3, 0.9], abs=1e-6
    )


@pytest.mark.parametrize("case", ["resmlp_local", "repmlpnet_partitioned"])
def test_the_sparsity_is_reached_to_the_weight_and_stays(case):
    model, watch = compiled(merged(case)), Watch()
    pruning = Pruning(TARGETS, end_step=4, frequency=2)
    fit(model, pruning, watch, validation_data=(cases.images(model), np.zeros(2)))
    final = expected_zeros(model, TARGETS)
    half = 1 - 0.5**3  # of the way at step 2
    assert watch.batches[1] == expected_zeros(model, TARGETS, half)
    assert watch.batches[3:] == [final] * 3
    assert watch.validated == [final]
    assert zeros(model) == final
    outputs = cases.run(model, cases.images(model))
    assert np.isfinite(outputs).all()


def test_what_is_left_learns_and_others_are_left_alone():
    model = compiled()
    before = kernels(model)
    before = {name: array.copy() for name, (_, array) in before.items()}
    fit(model, Pruning(TARGETS, end_step=2, frequency=1))
    for name, (linear, array) in kernels(model).items():
        moved = array[array != 0] != before[name][array != 0]
        assert moved.mean() > 0.9
        assert (array == 0).any() == (linear.kind in TARGETS)


def test_two_of_every_four_inputs_are_zero():
    model = compiled(merged("repmlpnet_partitioned"))
    fit(model, Pruning(end_step=2, sparsity_m_by_n=(2, 4)))
    for linear, array in kernels(model).values():
        if linear.kind not in ("patch mixing", "channel"):
            assert (array != 0).all()
            continue
        rows = np.moveaxis(array, linear.input_axis, -1)
        blocks = rows.reshape(-1, rows.shape[-1] // 4, 4)
        assert ((blocks == 0).sum(axis=-1) == 2).all()


def test_a_function_chooses_the_layers():
    model = compiled()
    chosen = "block1_cross_channel/fc2"
    fit(
        model,
        Pruning(lambda linear: 0.75 if linear.name == chosen else None, end_step=2),
    )
    assert {n: count for n, count in zeros(model).items() if count} == {chosen: 768}


@pytest.mark.parametrize("swap", [False, True])
def test_averages_are_masked_too(swap):
    model, watch = compiled(use_ema=True, ema_momentum=0.9), Watch()
    swapping = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] * swap
    fit(
        model,
        Pruning(TARGETS, end_step=4, frequency=1),
        *swapping,
        watch,
        validation_data=(cases.images(model), np.zeros(2)),
    )
    final = expected_zeros(model, TARGETS)
    assert watch.validated == [final]
    assert zeros(model) == final
    averages = model.optimizer._model_variables_moving_average
    pairs = zip(model.trainable_variables, averages, strict=True)
    assert all((average.numpy()[w.numpy() == 0] == 0).all() for w, average in pairs)


def test_a_resumed_fit_goes_on(tmp_path):
    """Interrupted after two of three epochs, it ends as one that was not."""

    class Stopped(Exception):
        pass

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise Stopped

    def run(*callbacks):
        keras.utils.set_random_seed(0)
        model = compiled()
        pruning = Pruning(TARGETS, end_step=10, frequency=4)
        fit(model, pruning, *callbacks, steps=4, epochs=3)
        return model

    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(Stopped):
        run(Stop(), backup)
    watch = Watch()
    resumed = run(watch, backup)
    assert len(watch.batches) == 4  # only the last epoch
    share = 1 - 0.2**3  # in step 8, when it goes on
    assert watch.batches[0] == expected_zeros(resumed, TARGETS, share)
    assert zeros(resumed) == expected_zeros(resumed, TARGETS)
    for actual, expected in zip(resumed.get_weights(), run().get_weights()):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_second_fit_keeps_what_the_first_pruned():
    model = compiled()
    fit(model, Pruning(TARGETS, end_step=4, frequency=1))
    pruned = {name: array == 0 for name, (_, array) in kernels(model).items()}
    fit(model, Pruning(TARGETS, end_step=4, frequency=1))
    for name, (_, array) in kernels(model).items():
        np.testing.assert_array_equal(array == 0, pruned[name])


def test_two_replicas_hold_the_same_zeros(tmp_path):
    script = f"""
import sys
sys.path[:0] = ["{ROOT}", "{ROOT / "tests"}", "{ROOT / "tests" / "compression"}"]
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import numpy as np
import test_pruning as t
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = t.compiled(t.merged("resmlp", depth=1), use_ema=True)
pruning = t.Pruning(t.TARGETS, end_step=2, frequency=1)
t.fit(model, pruning, steps=3)
assert t.zeros(model) == t.expected_zeros(model, t.TARGETS), t.zeros(model)
averages = model.optimizer._model_variables_moving_average
for variable in [*model.trainable_variables, *averages]:
    first, second = (v.numpy() for v in strategy.experimental_local_results(
        getattr(variable, "value", variable)))
    np.testing.assert_array_equal(first, second)
"""
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_fit_that_is_too_short_is_said():
    with pytest.warns(UserWarning, match="ended at step 6 before `end_step`.* at 58%"):
        fit(compiled(), Pruning(0.5, end_step=24, frequency=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, r"\[0, 1\). Received: 1.0"),
        ({"sparsity": {"mixing": 0.5}}, r"'patch mixing'.*Received: \['mixing'\]"),
        ({"sparsity": {"channel": -0.1}}, "Received: -0.1"),
        ({"sparsity": None}, "Received: None"),
        ({"sparsity": 0.5, "end_step": 0}, "end_step=0"),
        ({"sparsity": 0.5, "begin_step": -1}, "begin_step=-1"),
        ({"sparsity": 0.5, "frequency": 0}, "Received: 0"),
        ({"sparsity": 0.5, "schedule": "linear"}, "Received: schedule='linear'"),
        ({"sparsity": 0.5, "initial_sparsity": 2}, "`initial_sparsity`.*Received: 2"),
        ({"sparsity_m_by_n": (4, 2)}, r"Received: \(4, 2\)"),
        ({"sparsity_m_by_n": 2}, "Received: 2"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pruning(**{"end_step": 10, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": {"convolution": 0.5}}, "Nothing is pruned"),
        ({"sparsity": lambda linear: 2}, "Received: 2"),
        ({"sparsity": 0.9, "sparsity_m_by_n": (2, 4)}, "is 0.5 or 0. Received: 0.9"),
    ],
)
def test_what_does_not_fit_is_named_before_training(arguments, message):
    model = compiled()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        fit(model, Pruning(end_step=10, **arguments))
    for weight, same in zip(model.get_weights(), before):
        np.testing.assert_array_equal(weight, same)
