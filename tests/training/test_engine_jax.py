"""The JAX engine, in processes of its own, against TensorFlow's and by hand."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from engine_cases import (
    GLOBAL_BATCH,
    STEPS,
    TINY,
    batches,
    images,
    one_image,
    place_batch,
    place_model,
    prepared,
    validation,
)

from kmlp.recipes import dense_recipes
from kmlp.training.engine.tensorflow import TensorFlowEngine
from kmlp.training.optimization import make_dense_schedule

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
JOBS = Path(__file__).with_name("jax_jobs.py")
FAMILIES = [name for name in TINY if name != "batch_norm"]


class Runs:
    """The jobs' processes and results."""

    def __init__(self, folder):
        self.folder = folder
        self.started = {}
        # A machine without TensorFlow.
        (folder / "tensorflow.py").write_text("raise ImportError")
        self.environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": f"{folder}{os.pathsep}{JOBS.parents[2]}",
            # XLA takes seconds for what runs for milliseconds: it does less, and once.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, *jobs, processes=1, devices=1):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        addresses = [f"127.0.0.1:{port}", "127.0.0.1:1"][:processes]
        for index in range(processes):
            log = self.folder / f"{jobs[0]}.{processes}.{devices}.{index}.log"
            command = [JOBS, self.folder, devices, ",".join(addresses), index, *jobs]
            with open(log, "w") as file:
                process = subprocess.Popen(
                    [sys.executable, *map(str, command)],
                    env=self.environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            for job in jobs:
                self.started[job, processes, devices, index] = process, log

    def ended(self, job, processes=1, devices=1, index=0):
        """The exit code of a job's process."""
        return self.started[job, processes, devices, index][0].wait(300)

    def result(self, job, processes=1, devices=1, index=0):
        """What a job returned, once its process has ended."""
        self.ended(job, processes, devices, index)
        path = self.folder / f"{job}.{processes}.{devices}.{index}.npz"
        log = self.started[job, processes, devices, index][1]
        assert path.exists(), log.read_text()[-3000:]
        with np.load(path) as results:
            return dict(results)


class Reference:
    """TensorFlow's engine on one device, from a state of its own."""

    def __init__(self, case):
        strategy = tf.distribute.get_strategy()
        self.case = case
        self.engine = TensorFlowEngine(strategy, "one device")
        prepared(self.engine, case, clip_norm=1.0, ema=0.9)
        self.begun = self.engine.state()

    def train(self, state, steps):
        self.engine.restore(state)
        signature = tuple(tf.TensorSpec(a.shape, a.dtype) for a in images(self.case, 0))

        def dataset():
            return tf.data.Dataset.from_generator(
                lambda: batches(self.engine, self.case), output_signature=signature
            )

        return self.engine.train(self.engine.feed(dataset), steps)


@pytest.fixture(scope="module")
def references():
    return {case: Reference(case) for case in FAMILIES}


@pytest.fixture(scope="module")
def runs(references, tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("jax"))
    for case, reference in references.items():
        np.savez(runs.folder / f"{case}.npz", **reference.begun)
    jobs = ("families", "replicas", "step_by_step", "queued", "misused", "trees")
    runs.start(*jobs, "rates")
    jobs = ("families", "replicas", "accumulated", "overflowing", "frozen", "trees")
    runs.start(*jobs, devices=2)
    return runs


@pytest.fixture(scope="module")
def later(runs):
    """The jobs that need the first ones' files, or the processors."""
    for key in list(runs.started):
        runs.ended(*key)
    runs.start("resumed", "accumulated", "clipped", "overflowing", "taught")
    runs.start("replicas", "together", "asked", "parting", processes=2)
    for index in (0, 1):
        runs.ended("replicas", 2, 1, index)
    runs.start("lost", processes=2)
    return runs


def part(results, prefix):
    """The entries below a prefix, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in results.items()
        if name.startswith(prefix)
    }


def assert_close(actual, expected, tolerance=1e-5):
    """Equal names and values, relative to each array's largest where that is over 1."""
    assert actual.keys() == expected.keys()
    assert actual
    for name, value in expected.items():
        scale = max(1.0, np.abs(np.asarray(value, "float64")).max(initial=0))
        np.testing.assert_allclose(
            actual[name], value, rtol=0, atol=tolerance * scale, err_msg=name
        )


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    assert actual
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def without(results, *names):
    return {name: value for name, value in results.items() if name not in names}


def test_frozen_weights_stay_as_they_are(runs):
    results = runs.result("frozen", devices=2)
    before, after = part(results, "before/"), part(results, "after/")
    moved = {n for n in before if not np.array_equal(before[n], after[n])}
    frozen = "model/block0_"
    # A bias before a norm may stay by itself.
    learned = {n for n in before if n.startswith("model/") and "bias" not in n}
    assert {n for n in learned if not n.startswith(frozen)} <= moved
    assert any(n.startswith(frozen) and "moving" in n for n in before)
    assert not any(n.startswith(frozen) for n in moved)
    assert not any(n.startswith(("ema/block0_", "optimizer/block0_")) for n in before)


# Against TensorFlow's engine.


@pytest.mark.parametrize("case", FAMILIES)
def test_a_state_of_tensorflow_continues(case, references, runs):
    expected = references[case].train(references[case].begun, 5)
    results = part(runs.result("families"), f"{case}/")
    actual = {name: results[name][:5] for name in expected}
    assert_close(actual, expected)


@pytest.mark.parametrize("case", FAMILIES)
def test_a_state_continues_on_tensorflow(case, references, runs):
    results = part(runs.result("families"), f"{case}/")
    state = part(results, "state/")
    assert state["step"] == STEPS
    reference = references[case]
    actual = reference.train(state, 2)["loss"]
    np.testing.assert_allclose(actual, results["next"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
def test_evaluation(devices, references, runs):
    """Against TensorFlow's logits, counted here; the padding does not count."""
    results = runs.result("families", devices=devices)
    engine = references["resmlp"].engine
    engine.restore(part(results, "resmlp/state/"))
    *rows, _ = validation(engine, "resmlp")
    inputs, labels, _ = (np.concatenate(arrays) for arrays in zip(*rows))
    for weights in ("evaluated", "averaged"):
        if weights == "averaged":
            with engine.averaged():
                logits = np.asarray(engine.model(inputs), "float64")
        else:
            logits = np.asarray(engine.model(inputs), "float64")
        own = logits[np.arange(len(labels)), labels]
        ranks = (logits > own[:, None]).sum(-1)
        expected = {
            "loss": np.mean(np.log(np.exp(logits).sum(-1)) - own),
            "top1": np.mean(ranks < 1),
            "top5": np.mean(ranks < 5),
            "count": len(labels),
        }
        assert_close(part(results, f"{weights}/"), expected)


# On several devices and processes.


@pytest.mark.parametrize("case", FAMILIES)
def test_two_devices_take_the_steps_of_one(case, runs):
    one = part(runs.result("families"), f"{case}/")
    two = runs.result("families", devices=2)
    assert str(two["description"]).startswith("2 CPU devices, ")
    two = part(two, f"{case}/")
    for name in ("loss", "gradient_norm", "accuracy", "finite", "next"):
        np.testing.assert_allclose(two[name], one[name], rtol=0, atol=1e-5)
    assert_close(part(two, "state/"), part(one, "state/"))


def test_two_devices_share_statistics_and_draws(runs):
    assert_shared(runs, processes=1, devices=2)


def test_two_processes_take_the_steps_of_one(later):
    assert_shared(later, processes=2, devices=1)
    assert_same(*[later.result("replicas", 2, 1, index) for index in (1, 0)])


def assert_shared(runs, processes, devices):
    """BatchNorm and stochastic depth as on one device."""
    one = runs.result("replicas")
    two = runs.result("replicas", processes, devices)
    losses = one["loss"]
    assert np.std(losses) > 1e-3
    assert_close(without(two, "description"), without(one, "description"))


def test_trees_of_targets_and_outputs(runs):
    one, two = (runs.result("trees", devices=devices) for devices in (1, 2))
    for parts in ("1/", "2/"):
        values = part(two, parts)
        assert {"loss", "place_loss", "found"} < values.keys()
        moving = [name for name in values if name.endswith("moving_mean")]
        assert len(moving) == 2
        assert all(np.abs(values[name]).max() > 0 for name in moving)
    # Draws too are those of the global batch.
    assert_close(part(two, "1/"), part(one, "1/"))
    assert_answers(one)
    assert_answers(two)


def test_rates_of_dense_recipes(runs):
    results = runs.result("rates")
    steps = np.int32([0, 1, 499, 500, 59_135, 59_136, 79_999, 159_999, 270_000])
    for name, recipe in dense_recipes().items():
        expected = np.asarray(make_dense_schedule(recipe, 7392)(steps))
        np.testing.assert_allclose(results[name], expected, rtol=1e-6, atol=1e-14)


def test_processes_infer_their_share_and_tell_each_other(later):
    results = [later.result("asked", 2, 1, index) for index in (0, 1)]
    for own in results:
        assert_answers(own)
        assert own["inferred/empty"] == 5
    assert [len(own["inferred/own"]) for own in results] == [12, 11]


def assert_answers(results):
    """Those of the network itself on TensorFlow, each image's once."""
    model = place_model()
    weights = part(results, "weights/")
    model.set_weights([weights[name] for name in sorted(weights, key=int)])
    images = np.concatenate([place_batch(step)[0] for step in (100, 101)])
    places = [place_batch(step)[1]["places"] for step in (100, 101)]
    maps = np.asarray(model(images)["maps"][0]).mean((1, 2, 3))
    expected = (maps + np.concatenate(places)[:, 0]).mean()
    assert results["evaluated/count"] == 2 * GLOBAL_BATCH
    assert results["evaluated/found"] == pytest.approx(expected, abs=1e-5)
    order = np.argsort(results["inferred/numbers"])
    assert results["inferred/numbers"][order].tolist() == list(range(23))
    np.testing.assert_allclose(
        results["inferred/features"][order],
        np.asarray(model(one_image(np.arange(23)))["features"]),
        rtol=0,
        atol=1e-5,
    )


def test_processes_agree(later):
    for index in (0, 1):
        results = later.result("together", 2, 1, index)
        assert results["any"].tolist() == [True, False]
        assert results["broadcast"].tolist() == [0, 2**40 + 0.5]


def test_processes_part_without_waiting(later):
    for index in (0, 1):
        assert later.result("parting", 2, 1, index)["step"] == 0
        assert later.ended("parting", 2, 1, index) == 0


def test_a_lost_process_is_noticed(later):
    message = str(later.result("lost", 2, 1)["message"])
    assert "start all workers again" in message
    assert later.ended("lost", 2, 1, 1) == -9


# The rules of a step.


def test_averages(runs):
    """The moving average of weights and statistics, by hand."""
    results = part(runs.result("step_by_step"), "each/")
    averages = part(results, "ema/")
    assert any("moving_variance" in name for name in averages)
    for name, values in averages.items():
        weights = np.asarray(results[f"model/{name}"], "float64")
        expected = [weights[0]]
        for weight in weights[1:]:
            expected.append(0.9 * expected[-1] + 0.1 * weight)
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7)
        assert np.abs(values[-1] - weights[-1]).max() > 0


def test_a_resumed_run_is_the_uninterrupted_one(later):
    whole = later.result("step_by_step")
    expected = [name for name in whole if not name.startswith("each/")]
    assert_same(later.result("resumed"), {name: whole[name] for name in expected})


def test_queued_steps_are_those_one_by_one(runs):
    one, queued = runs.result("step_by_step"), runs.result("queued")
    for name in ("loss", "accuracy", "gradient_norm", "finite"):
        np.testing.assert_array_equal(queued[name][-len(one[name]) :], one[name])
        assert len(queued[name]) == STEPS
    for name in queued:
        if "/" in name:
            np.testing.assert_array_equal(queued[name], one[name])


@pytest.mark.parametrize("devices", [1, 2])
def test_micro_batches_equal_the_batch(devices, later):
    results = later.result("accumulated", devices=devices)
    assert_close(part(results, "True/"), part(results, "False/"))


def test_clipping(later):
    """Of plain gradient descent at a rate of 0.1, by hand."""
    results = later.result("clipped")
    changes = {}
    for clip_norm in ("None", "0.01"):
        before = part(results, f"{clip_norm}/before/model/")
        after = part(results, f"{clip_norm}/after/model/")
        changes[clip_norm] = np.concatenate(
            [(np.float64(after[name]) - before[name]).ravel() / -0.1 for name in before]
        )
    gradient = changes["None"]
    norm = np.linalg.norm(gradient)
    assert norm > 0.1
    for clip_norm in changes:
        np.testing.assert_allclose(
            results[f"{clip_norm}/gradient_norm"], [norm], rtol=1e-4
        )
    np.testing.assert_allclose(
        changes["0.01"], gradient * 0.01 / norm, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("devices", [1, 2])
def test_an_overflow_changes_the_loss_scale_alone(devices, later):
    results = later.result("overflowing", devices=devices)
    before, after = part(results, "before/"), part(results, "after/")
    assert results["two/finite"].all()
    assert not results["bad/finite"].any()
    assert results["next/finite"].all()
    changed = ("loss_scale", "loss_scale_steps", "step")
    assert [before[name] for name in changed] == [2.0**15, 2, 2]
    assert [after[name] for name in changed] == [2.0**14, 0, 3]
    assert_same(without(after, *changed), without(before, *changed))
    np.testing.assert_allclose(
        results["bfloat16/loss"], results["two/loss"], rtol=0, atol=0.02
    )


def test_distillation(later):
    """DeiT's soft loss at its defaults, by hand; the teacher's weights may change."""
    results = later.result("taught")

    def log_softmax(logits):
        logits = np.asarray(logits, "float64")
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    for after in ("", "_after"):
        student, teacher = results[f"student{after}"], results[f"teacher{after}"]
        entropy = -np.sum(results["targets"] * log_softmax(student), -1)
        taught, own = log_softmax(teacher / 3), log_softmax(student / 3)
        divergence = 9 * np.sum(np.exp(taught) * (taught - own), -1)
        expected = np.mean(0.5 * entropy + 0.5 * divergence)
        np.testing.assert_allclose(results[f"loss{after}"], [expected], atol=1e-5)
    assert np.abs(results["teacher"] - results["teacher_after"]).max() > 1


def test_misuse_is_said(runs):
    messages = runs.result("misused")
    assert "before JAX is used. Received: 3" in str(messages["late"])
    assert "choose 1 to 1. Received: 2" in str(messages["many"])
    assert "The data end before step 1" in str(messages["short"])
