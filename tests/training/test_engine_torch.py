"""The engine on PyTorch, in a process of its own, against TensorFlow's."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from engine_cases import batches, images, prepared, validation

from kmlp.training.engine.tensorflow import TensorFlowEngine

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
JOBS = Path(__file__).with_name("torch_jobs.py")
CASES = ("repmlpnet",)


@pytest.fixture(scope="module")
def references():
    """TensorFlow's engine, prepared and at its beginning."""
    engines = {}
    for case in CASES:
        engine = TensorFlowEngine(tf.distribute.get_strategy(), "one device")
        engines[case] = prepared(engine, case, clip_norm=1.0, ema=0.9)
    return engines


@pytest.fixture(scope="module")
def results(references, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    for case, engine in references.items():
        np.savez(folder / f"{case}.npz", **engine.state())
    process = subprocess.run(
        [sys.executable, str(JOBS), str(folder)],
        env={**os.environ, "PYTHONPATH": str(JOBS.parents[2])},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    with np.load(folder / "results.npz") as file:
        return dict(file)


def part(results, prefix):
    """The entries below a prefix, without it."""
    prefix += "/"
    return {n[len(prefix) :]: v for n, v in results.items() if n.startswith(prefix)}


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_tensorflow_continues(case, references, results):
    engine, own = references[case], part(results, f"continued/{case}")
    signature = tuple(tf.TensorSpec(a.shape, a.dtype) for a in images(case, 0))

    def dataset():
        return tf.data.Dataset.from_generator(
            lambda: batches(engine, case), output_signature=signature
        )

    expected = engine.train(engine.feed(dataset), 5)
    for name in ("loss", "accuracy", "gradient_norm", "finite"):
        np.testing.assert_allclose(own[name], expected[name], rtol=0, atol=1e-5)
    state = engine.state()
    own = part(own, "state")
    assert own.keys() == state.keys()
    for name, value in state.items():
        scale = max(1.0, np.abs(value).max(initial=0))
        np.testing.assert_allclose(
            own[name], value, rtol=0, atol=1e-5 * scale, err_msg=name
        )
    specs = [
        tf.TensorSpec(array.shape, array.dtype)
        for array in next(validation(engine, case))
    ]
    with engine.averaged():
        found = engine.task.validate(
            engine,
            lambda: tf.data.Dataset.from_generator(
                lambda: validation(engine, case), output_signature=tuple(specs)
            ),
        )
    averaged = part(results, f"continued/{case}/averaged")
    assert averaged["count"] == found["count"]
    np.testing.assert_allclose(averaged["loss"], found["loss"], rtol=0, atol=1e-5)


def test_a_run_in_parts_is_that_in_one(results):
    whole, parts = part(results, "resumed/whole"), part(results, "resumed/parts")
    assert parts["step"] == 7
    for name, value in parts.items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_micro_batches_add_up(results):
    own = part(results, "accumulated")
    np.testing.assert_allclose(own["4/loss"], own["1/loss"], rtol=0, atol=1e-5)


def test_a_step_that_overflows_has_no_effect(results):
    own = part(results, "overflowing")
    assert own["two/finite"].all()
    assert not own["bad/finite"].any()
    before, after = part(own, "before"), part(own, "after")
    assert after["loss_scale"] == before["loss_scale"] / 2
    for name, value in before.items():
        if name not in ("step", "loss_scale", "loss_scale_steps"):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    assert own["bfloat16/finite"].all()


def test_frozen_weights_stay_as_they_are(results):
    before = part(results, "frozen/before")
    after = part(results, "frozen/after")
    moved = {n for n in before if not np.array_equal(before[n], after[n])}
    assert any(name.startswith("model/block1_") for name in moved)
    assert any(name.startswith("model/block0_") for name in before)
    assert not any(name.startswith("model/block0_") for name in moved)


def test_trees_of_outputs_and_targets(results):
    own = part(results, "trees")
    assert own["finite"].all()
    assert own["count"] == 16
    assert own["numbers"].tolist() == list(range(23))


def test_there_is_one_device(results):
    assert str(results["description"]).endswith("device, PyTorch")
    assert "trains on one device" in str(results["misused/message"])
