"""The TensorFlow engine: on one device against Keras and by hand, then on several.

Several devices and several processes have processes of their own, which run while
the tests of one device do; see `engine_worker.py`.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import few
from engine_cases import (
    GLOBAL_BATCH,
    STEPS,
    TINY,
    batches,
    images,
    one_image,
    place_batch,
    place_batches,
    place_model,
    prepared,
    prepared_places,
)
from engine_cases import validation as validation_of

from kmlp.errors import KmlpError
from kmlp.training.engine import cluster
from kmlp.training.engine.engine import Options
from kmlp.training.engine.rules import next_loss_scale, seeds
from kmlp.training.engine.tensorflow import TensorFlowEngine, share
from kmlp.training.engine.weight_names import optimizer_names, weight_names
from kmlp.training.input.order import scrambled
from kmlp.training.tasks.classification import evaluation_sums

WORKER = Path(__file__).with_name("engine_worker.py")
FAMILIES = [name for name in TINY if name != "batch_norm"]
RESUMED = ("convmlp", "repmlpnet", "resmlp", "batch_norm")  # as in engine_worker.py
# One without and one with statistics: what the families differ in for an engine.
TOGETHER = few(FAMILIES, "resmlp", "repmlpnet")
DEVICES = ("replicas", "overflowing")
LONG = ("accumulated", "compiled")
TREES = ("trees", "trees_alone")


class Runs:
    """Results of the worker's jobs, waited for where they are first asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.started = {}

    def start(self, *jobs, strategy, devices=1, addresses=("alone",), index=0):
        command = [sys.executable, WORKER, self.folder, strategy, devices]
        with open(self.folder / f"{strategy}.{index}.log", "w") as log:
            process = subprocess.Popen(
                [str(part) for part in [*command, ",".join(addresses), index, *jobs]],
                env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
                stdout=log,
                stderr=log,
            )
        names = [job.partition(":")[0] for job in jobs]
        self.started |= {(name, strategy, index): process for name in names}

    def pair(self, *jobs):
        """Two processes that train together."""
        addresses = free_addresses(2)
        for index in (0, 1):
            self.start(*jobs, strategy="multi_worker", addresses=addresses, index=index)

    def result(self, job, strategy, index=0):
        """What a job returned."""
        path = self.folder / f"{job}.{strategy}.{index}.npz"
        process = self.started[job, strategy, index]
        while not path.exists() and process.poll() is None:
            time.sleep(0.1)
        log = self.folder / f"{strategy}.{index}.log"
        assert path.exists(), log.read_text()[-3000:]
        with np.load(path) as results:
            return dict(results)

    def end(self):
        for process in self.started.values():
            process.kill()
            process.wait()


def free_addresses(count):
    """Addresses on this machine whose ports are free."""
    with contextlib.ExitStack() as stack:
        probes = [
            stack.enter_context(socket.create_server(("", 0))) for _ in range(count)
        ]
        return [f"localhost:{probe.getsockname()[1]}" for probe in probes]


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory, request):
    runs = Runs(tmp_path_factory.mktemp("engine"))
    own = [item for item in request.session.items if item.path == Path(__file__)]
    asked = {item.originalname for item in own}
    cases = [
        item.callspec.params["case"]
        for item in own
        if item.originalname == "test_two_devices_train_as_one"
    ]
    jobs = [f"{job}:{','.join(cases or FAMILIES[:1])}" for job in ("alone", "families")]
    more = LONG if "test_compiled_replicas" in asked else ()
    runs.start(*TREES, *jobs, *DEVICES, *more, strategy="mirrored", devices=2)
    runs.pair("asked", "together", jobs[1])
    if "test_resumed_run_is_the_uninterrupted_one_bit_for_bit" in asked:
        runs.start("whole", strategy="single", index=0)
        runs.start("resumed", strategy="single", index=1)
    yield runs
    runs.end()


@pytest.fixture
def engine():
    return TensorFlowEngine(tf.distribute.OneDeviceStrategy("/cpu:0"), "one device")


def dataset(generate):
    signature = tf.nest.map_structure(
        lambda array: tf.TensorSpec(array.shape, array.dtype), next(generate())
    )
    return tf.data.Dataset.from_generator(generate, output_signature=signature)


def run(engine, case, steps):
    iterator = engine.feed(lambda: dataset(lambda: batches(engine, case)))
    return engine.train(iterator, steps)


def part(results, prefix):
    """The results whose names begin so, without the beginning."""
    prefix += "/"
    return {
        name.removeprefix(prefix): value
        for name, value in results.items()
        if name.startswith(prefix)
    }


def assert_close(actual, expected, tolerance):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )


# One device.


def test_steps_are_those_of_keras(engine):
    prepared(engine, "convmlp")
    twin = keras.models.clone_model(engine.model)
    twin.set_weights(engine.model.get_weights())
    twin.compile(
        type(engine.optimizer).from_config(engine.optimizer.get_config()),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    losses = [twin.train_on_batch(*images("convmlp", step)) for step in range(STEPS)]
    values = run(engine, "convmlp", STEPS)
    np.testing.assert_allclose(values["loss"], losses, rtol=1e-5)
    for weight, expected in zip(engine.model.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    assert values["finite"].all()


@pytest.mark.long
@pytest.mark.parametrize("case", FAMILIES)  # drop nothing: XLA draws other numbers
def test_compiled_steps_are_those_of_the_graph(engine, case):
    options = {"clip_norm": 1.0, "ema": 0.9}
    plain = run(prepared(engine, case, **options), case, 5)
    compiled = run(prepared(engine, case, xla=True, **options), case, 5)
    assert_close(compiled, plain, 1e-5)


@pytest.mark.long
def test_steps_of_one_execution_are_the_same(engine):
    prepared(engine, "batch_norm", ema=0.9, seed=5)
    single = run(engine, "batch_norm", 7), engine.state()
    prepared(engine, "batch_norm", ema=0.9, seed=5, steps_per_execution=5)
    several = run(engine, "batch_norm", 7), engine.state()
    for one, other in zip(single, several):
        assert_close(other, one, 0)
    assert engine.step == 7


@pytest.mark.long
def test_seed_decides_what_is_dropped(engine):
    begun = prepared(engine, "batch_norm").state()
    losses = []
    for seed in (1, 1, 2):
        engine.restore(begun)
        engine.options = dataclasses.replace(engine.options, seed=seed)
        losses.append(run(engine, "batch_norm", 2)["loss"])
    assert np.array_equal(losses[0], losses[1])
    assert not np.isclose(losses[0], losses[2]).any()


def test_micro_batches_are_the_large_batch(engine):
    options = {"clip_norm": 0.1, "ema": 0.9}
    large = run(prepared(engine, "resmlp", **options), "resmlp", STEPS)
    large |= engine.state()
    parts = run(prepared(engine, "resmlp", accumulate=4, **options), "resmlp", STEPS)
    assert_close(parts | engine.state(), large, 1e-5)


def test_average_follows_all_float_weights(engine):
    decay = 0.75
    prepared(engine, "batch_norm", ema=decay)
    expected = part(engine.state(), "model")
    for _ in range(5):
        run(engine, "batch_norm", 1)
        state = engine.state()
        for name, value in part(state, "model").items():
            expected[name] = decay * expected[name] + (1 - decay) * value
        assert_close(part(state, "ema"), expected, 1e-6)
    weights = part(state, "model")
    with engine.averaged():
        assert_close(part(engine.state(), "model"), part(state, "ema"), 0)
    assert_close(part(engine.state(), "model"), weights, 0)
    assert any(np.abs(weights[n] - expected[n]).max() > 1e-4 for n in weights)


def test_no_average_is_an_error(engine):
    prepared(engine, "resmlp")
    with pytest.raises(ValueError, match="set `ema`"), engine.averaged():
        pass


def test_step_without_a_finite_gradient_changes_nothing(engine):
    prepared(engine, "batch_norm", ema=0.9, clip_norm=1.0)
    before = engine.state()
    batch, targets = images("batch_norm", 0)
    batch[0, 0, 0, 0] = np.nan

    def bad():
        while True:
            yield batch, targets

    values = engine.train(engine.feed(lambda: dataset(bad)), 2)
    assert not values["finite"].any()
    assert np.isnan(values["loss"]).all()
    assert engine.state().pop("step") == 2
    assert_close(engine.state() | {"step": 0}, before, 0)


def test_evaluation_counts_rows_with_weight(engine):
    prepared(engine, "resmlp")
    data = dataset(lambda: validation_of(engine, "resmlp"))
    measured = engine.task.validate(engine, lambda: data)
    rows = [rows for rows in validation_of(engine, "resmlp") if rows[2].all()]
    logits = engine.model.predict(np.concatenate([r[0] for r in rows]), verbose=0)
    labels = np.concatenate([r[1] for r in rows])
    logits = logits.astype("float64")
    own = logits[np.arange(len(labels)), labels]
    losses = np.log(np.exp(logits).sum(-1)) - own
    ranks = (logits > own[:, None]).sum(-1)
    expected = {
        "loss": losses.mean(),
        "top1": (ranks < 1).mean(),
        "top5": (ranks < 5).mean(),
        "count": len(labels),
    }
    assert 0 < expected["top1"] < expected["top5"] < 1
    assert_close(measured, expected, 1e-6)


# State.


def test_state_is_restored(engine):
    state = prepared(engine, "batch_norm", ema=0.9, precision="float16").state()
    other = {name: array + 1 for name, array in state.items()}
    engine.restore(other)
    assert_close(engine.state(), other, 0)
    assert engine.step == 1
    assert [v.dtype for v in engine.state().values()] == [
        v.dtype for v in state.values()
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model/head/dense/bias"), "missing: model/head/dense/bias"),
        (lambda s: s.pop("step"), "missing: step"),
        (lambda s: s.update(more=np.zeros(2)), "unexpected: more"),
        (
            lambda s: s.update({"model/head/dense/bias": np.zeros(7)}),
            r"another shape: model/head/dense/bias \(7,\) in place of \(6,\)",
        ),
        (
            lambda s: [s.pop(name) for name in list(s) if name.startswith("ema/")],
            r"missing: ema/.* \(\d+ in all\)",
        ),
    ],
)
def test_another_runs_state_is_refused(engine, change, message):
    state = prepared(engine, "resmlp", ema=0.9).state()
    change(state)
    with pytest.raises(KmlpError, match=message):
        engine.restore(state)


def test_names_do_not_count_what_was_built_before():
    def model():
        inputs = keras.Input((4,))
        x = keras.layers.Dense(4)(inputs)
        x = keras.layers.Dense(4, name="a")(x)
        x = keras.layers.Dense(4, name="a_kernel")(x)
        return keras.Model(inputs, keras.layers.Dense(4)(x))

    names = []
    for _ in range(2):
        network = model()
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(network.trainable_variables)
        weights = weight_names(network)
        slots = optimizer_names(optimizer, network)
        assert len(weights) == 8
        assert len(slots) == len(optimizer.variables)
        for name, weight in weights.items():
            assert slots[f"{name}/momentum"].name.startswith(
                weight.path.replace("/", "_")
            )
        names.append((*weights, *slots))
    assert names[0] == names[1]
    assert "dense_1/kernel" in names[0]


# Rules.


@pytest.mark.parametrize(
    ("scale", "steps", "finite", "expected"),
    [
        (2.0**15, 0, True, (2.0**15, 1)),
        (2.0**15, 1998, True, (2.0**15, 1999)),
        (2.0**15, 1999, True, (2.0**16, 0)),
        (2.0**15, 1999, False, (2.0**14, 0)),
        (2.0**15, 7, False, (2.0**14, 0)),
        (1.0, 7, False, (1.0, 0)),
        (2.0**32, 1999, True, (2.0**32, 0)),
    ],
)
def test_loss_scale(scale, steps, finite, expected):
    after = next_loss_scale(tf.constant(scale), tf.constant(steps), tf.constant(finite))
    assert tuple(float(value) for value in after) == expected


def test_evaluation_ranks_equal_logits_in_order_and_nan_last():
    logits = np.zeros((4, 7), "float32")
    logits[3] = np.nan
    sums = evaluation_sums(logits, np.array([0, 4, 5, 0]), np.ones(4))[1:]
    assert [float(value) for value in sums] == [1, 2, 4]


def test_seeds_are_a_function_of_all_indices():
    table = seeds(7, 0, 6, 4, 3)
    assert np.array_equal(table[2:5], seeds(7, 2, 3, 4, 3))
    assert np.array_equal(table[:, :2], seeds(7, 0, 6, 2, 3))
    assert not np.isin(seeds(8, 0, 6, 4, 3), table).any()
    assert len(np.unique(table)) == table.size
    assert table.min() >= 0
    # Keras counts draws in the second number.
    assert table[..., 1].max() < 2**30


def test_scrambling_is_splitmix64():
    # The generator's first outputs from the seeds 0 and 1234567.
    first = scrambled(np.array([0, 1234567], np.uint64))
    assert first.tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


@pytest.mark.parametrize(
    "fields", [{"precision": "half"}, {"accumulate": 0}, {"steps_per_execution": 0}]
)
def test_options_are_checked(fields):
    with pytest.raises(KmlpError, match=f"`{next(iter(fields))}` must be .* Received"):
        Options(**fields)


def test_hosts_of_a_tpu_share_the_batches():
    batches = tf.data.Dataset.range(24)
    shares = [[int(i) for i in share(batches, 4, 3, host)] for host in range(3)]
    assert shares[1] == [4, 5, 6, 7, 16, 17, 18, 19]
    assert sorted(itertools.chain(*shares)) == list(range(24))


# Several devices.


@pytest.mark.parametrize("case", TOGETHER)
def test_two_devices_train_as_one(runs, case):
    one = part(runs.result("alone", "mirrored"), case)
    two = part(runs.result("families", "mirrored"), case)
    assert not two.pop("synchronized").any()  # nothing of it remains
    one.pop("synchronized")
    assert one["loss"].shape == (STEPS,)
    assert_close(two, one, 1e-5)


@pytest.mark.parametrize("case", TOGETHER)
def test_two_processes_train_as_one(runs, case):
    one = part(runs.result("alone", "mirrored"), case)
    for index in (0, 1):
        two = part(runs.result("families", "multi_worker", index), case)
        assert_close(two, one, 1e-5)


@pytest.mark.parametrize("job", ["mirrored", "multi_worker"])
def test_replicas_evaluate_together(runs, job):
    one = part(runs.result("alone", "mirrored"), "evaluated")
    two = part(runs.result("families", job), "evaluated")
    assert one["count"] == 4 * GLOBAL_BATCH
    assert_close(two, one, 1e-5)


def test_gradient_is_clipped_after_the_sum(runs):
    results = runs.result("replicas", "mirrored")
    before, after = part(results, "before"), part(results, "after")
    halves = [part(results, f"gradient{half}") for half in (0, 1)]
    gradient = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    norm = _norm(gradient)
    assert norm > 0.1
    assert results["gradient_norm"] == pytest.approx([norm], rel=1e-5)
    for name, value in gradient.items():
        step = 0.1 * 0.01 * value / norm
        np.testing.assert_allclose(
            before[name] - after[name], step, rtol=1e-3, atol=1e-7, err_msg=name
        )
    # Clipped before the sum, it would be another.
    early = {
        name: sum(half[name] / _norm(half) for half in halves) / 2 for name in gradient
    }
    assert _norm(early) < 0.97


def test_unsynchronized_statistics_are_the_replicas_mean(runs):
    results = runs.result("replicas", "mirrored")
    after = part(results, "after")
    halves = [part(results, f"moved{half}") for half in (0, 1)]
    names = [name for name in after if "moving_" in name]
    assert names
    for name in names:
        np.testing.assert_allclose(
            after[name], (halves[0][name] + halves[1][name]) / 2, rtol=1e-5, atol=1e-6
        )


def test_overflow_on_one_replica_skips_the_step_on_all(runs):
    results = runs.result("overflowing", "mirrored")
    before, after = part(results, "before"), part(results, "after")
    assert part(results, "two")["finite"].all()
    assert not part(results, "bad")["finite"].any()
    assert before.pop("loss_scale") == 2**15
    assert after["loss_scale"] == 2**14
    assert (before.pop("step"), after["step"]) == (2, 3)
    assert (before.pop("loss_scale_steps"), after["loss_scale_steps"]) == (2, 0)
    for copies in (after, part(results, "copies")):
        for name, value in before.items():
            np.testing.assert_array_equal(copies[name], value, err_msg=name)
    assert before["optimizer/iteration"] == 2
    assert part(results, "next")["finite"].all()
    assert np.isfinite(part(results, "next")["loss"]).all()


@pytest.mark.long
def test_micro_batches_of_replicas(runs):
    results = runs.result("accumulated", "mirrored")
    assert_close(part(results, "2"), part(results, "1"), 1e-5)


@pytest.mark.long
def test_compiled_replicas(runs):
    results = runs.result("compiled", "mirrored")
    assert_close(part(results, "xla"), part(results, "plain"), 1e-5)
    assert "sync_batchnorm=false" in str(results["message"])


def test_trees_of_targets_and_outputs(runs):
    whole, halves = [range(8)], [range(4), range(4, 8)]
    for job, micro_batches in {
        "trees_alone": {"1": whole, "2": halves},
        # Replicas share their statistics: their first halves, and their second ones.
        "trees": {"1": whole, "2": [(0, 1, 4, 5), (2, 3, 6, 7)]},
    }.items():
        results = runs.result(job, "mirrored")
        for parts, rows in micro_batches.items():
            values = part(results, parts)
            assert values["finite"].all()
            missed = first_missed(rows)
            assert values["place_loss"][0] == pytest.approx(missed.mean(), rel=1e-5)
            assert values["found"][0] == pytest.approx((missed < 6).mean())
            # Statistics of a layer that only the losses call.
            moving = [name for name in values if name.endswith("moving_mean")]
            assert len(moving) == 2
            assert all(np.abs(values[name]).max() > 0 for name in moving)
        assert_answers(results)


def test_losses_of_trees_by_hand(engine):
    prepared_places(engine)
    data = dataset(lambda: place_batches(engine))
    values = engine.train(engine.feed(lambda: data), 1)
    missed = first_missed([range(8)])
    assert values["place_loss"][0] == pytest.approx(missed.mean(), rel=1e-5)
    assert 0 < values["found"][0] < 1
    assert values["found"][0] == pytest.approx((missed < 6).mean())
    drawn = values["loss"][0] / np.mean(missed * place_batch(0)[1]["known"]) - 1
    assert 0 < drawn < 1


def first_missed(micro_batches):
    """What a fresh network misses places by, in batches of these rows."""
    keras.utils.set_random_seed(0)
    model, (images, targets) = place_model(), place_batch(0)
    missed = np.zeros(GLOBAL_BATCH)
    for rows in micro_batches:
        rows = list(rows)
        features = model(images[rows], training=True)["features"]
        places = np.asarray(model.late(features, training=True))
        missed[rows] = np.square(places - targets["places"][rows]).sum(-1)
    return missed


def test_without_a_batch_there_is_no_evaluation(engine):
    prepared(engine, "resmlp")
    data = dataset(lambda: validation_of(engine, "resmlp"))
    with pytest.raises(KmlpError, match=r"nothing to validate on\. Received"):
        engine.evaluate(lambda: data.take(0))


def assert_answers(results):
    """Those of the network itself, each image's once."""
    keras.utils.set_random_seed(0)
    model = place_model()
    images = np.concatenate([place_batch(step)[0] for step in (100, 101)])
    places = [place_batch(step)[1]["places"] for step in (100, 101)]
    maps = np.asarray(model(images)["maps"][0]).mean((1, 2, 3))
    expected = (maps + np.concatenate(places)[:, 0]).mean()
    assert results["evaluated/count"] == 2 * GLOBAL_BATCH
    assert results["evaluated/found"] == pytest.approx(expected, abs=1e-6)
    order = np.argsort(results["inferred/numbers"])
    assert results["inferred/numbers"][order].tolist() == list(range(23))
    np.testing.assert_allclose(
        results["inferred/features"][order],
        np.asarray(model(one_image(np.arange(23)))["features"]),
        rtol=0,
        atol=1e-6,
    )


# Several processes.


def test_processes_infer_their_share_and_tell_each_other(runs):
    results = [runs.result("asked", "multi_worker", index) for index in (0, 1)]
    for own in results:
        assert_answers(own)
        assert own["inferred/empty"] == 5
    assert [len(own["inferred/own"]) for own in results] == [12, 11]


def test_processes_agree(runs):
    results = [runs.result("together", "multi_worker", index) for index in (0, 1)]
    for own in results:
        assert own["any"].tolist() == [True, False]
        assert own["broadcast"].tolist() == [0, 2**40 + 0.5]
        before, after = part(own, "before"), part(own, "after")
        chief = part(results[0], "before")
        for name, value in chief.items():
            np.testing.assert_array_equal(before[name], value)
            np.testing.assert_array_equal(after[name], value + 1)


@pytest.mark.long
@pytest.mark.parametrize("case", RESUMED)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(runs, case):
    whole = part(runs.result("whole", "single", 0), case)
    resumed = part(runs.result("resumed", "single", 1), case)
    assert whole["step"] == 8
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert value.tobytes() == resumed[name].tobytes(), name


@pytest.mark.long
def test_lost_process_is_noticed(tmp_path):
    runs = Runs(tmp_path)
    runs.pair("lost")
    try:
        result = runs.result("lost", "multi_worker", 0)
    finally:
        runs.end()
    assert result["seconds"] < 60
    assert "start all workers again" in str(result["message"])


def _norm(arrays):
    return np.sqrt(sum(np.square(a, dtype="float64").sum() for a in arrays.values()))


# What is asked for, and what there is.


def tf_config(workers, kind="worker", index=0, **roles):
    return json.dumps(
        {
            "cluster": {"worker": workers, **roles},
            "task": {"type": kind, "index": index},
        }
    )


PAIR = ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not an object"),
        ("3", "not an object"),
        ('{"cluster": ["a:1"]}', "not an object"),
        ('{"cluster": {"worker": 5}}', "not an object"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', 'lacks "task"'),
        (tf_config(PAIR, index=2), r"index must be in 0…1, not 2"),
        (tf_config(PAIR, index="0"), r"index must be in 0…1, not '0'"),
        (tf_config(PAIR, "chief"), 'type "chief" is not in the cluster'),
        (tf_config(PAIR, ps=["c:3"]), "not ps"),
        (tf_config(["a", "b:2"]), "'a' is no host:port"),
        (tf_config(["a:1", "b:99999"]), "'b:99999' is no host:port"),
        (tf_config(["a:1", "a:1"]), "occurs twice"),
    ],
)
def test_tf_config_that_cannot_be_read(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(
        KmlpError, match=f"TF_CONFIG cannot be read, .*{message}.*Received"
    ):
        cluster.open_engine()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", cluster.Cluster()),
        ("{}", cluster.Cluster()),
        (tf_config(PAIR, index=1), cluster.Cluster(("a:1", "b:2"), 1)),
        (
            tf_config(PAIR, index=1, chief=["c:3"]),
            cluster.Cluster(("c:3", "a:1", "b:2"), 2),
        ),
        (
            tf_config(PAIR, "chief", chief=["c:3"]),
            cluster.Cluster(("c:3", "a:1", "b:2"), 0),
        ),
    ],
)
def test_tf_config(text, expected):
    assert cluster.read_cluster(text) == expected


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        (("fastest",), "", "one of 'auto', 'single'"),
        (("auto", 0), "", "positive integer"),
        (("single", 2), "", "choose mirrored"),
        (("multi_worker",), "", "at least two workers"),
        (("mirrored",), tf_config(PAIR), "choose multi_worker or unset"),
        (("tpu",), "", "TPU cannot be reached"),
        (("mirrored", 3), "", "before TensorFlow is used"),
        (("multi_worker", 2), tf_config(PAIR), "one CPU device"),
    ],
)
def test_strategy_that_does_not_fit(monkeypatch, arguments, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(KmlpError, match=f"{message}.* Received"):
        cluster.open_engine(*arguments)


def test_port_that_is_taken(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", tf_config([f"localhost:{port}", "b:2"]))
        with pytest.raises(KmlpError, match=f"cannot listen on port {port}"):
            cluster.open_engine()


def test_one_device_is_the_default(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    engine = cluster.open_engine()
    assert (engine.description, engine.replicas, engine.chief) == (
        "1 CPU device",
        1,
        True,
    )


@pytest.mark.parametrize(
    ("batch", "replicas", "accumulate", "expected"),
    [(8, 1, 1, 8), (8, 2, 1, 4), (4096, 8, 4, 512)],
)
def test_batch_of_a_replica(batch, replicas, accumulate, expected):
    assert cluster.per_replica_batch(batch, replicas, accumulate) == expected


@pytest.mark.parametrize(
    ("batch", "replicas", "accumulate", "nearest"),
    [(10, 4, 1, 8), (12, 4, 2, 16), (3, 4, 1, 4), (100, 8, 1, 96)],
)
def test_batch_that_does_not_divide(batch, replicas, accumulate, nearest):
    with pytest.raises(KmlpError, match=f"{nearest} is the nearest.*Received.*{batch}"):
        cluster.per_replica_batch(batch, replicas, accumulate)
