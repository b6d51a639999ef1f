"""What a backend's process runs, and the memory that it counts."""

import json
import os
import sys

import cases
import keras
import numpy as np
import pytest
from keras import ops

import kmlp
from kmlp import backend as backend_module
from kmlp.backend import settle_backend
from kmlp.benchmarking import contenders, devices
from kmlp.benchmarking.benchmarked import Case, Source, why_not
from kmlp.benchmarking.contenders import Desk
from kmlp.benchmarking.devices import Peak
from kmlp.benchmarking.measuring import random_images

XLA = keras.backend.backend() == "jax"
TINY = (
    *(("depths", (1,)), ("widths", (8,)), ("share_sets", (2,))),
    *(("mlp_ratio", 2), ("drop_path_rate", 0.0)),
)
SOURCE = Source("repmlpnet_t224", 5, (16, 24, 3), TINY)


@pytest.fixture
def made(monkeypatch):
    """The models that sources make, with random statistics."""
    models = []
    create = kmlp.create_model

    def created(*args, **kwargs):
        models.append(create(*args, **kwargs))
        cases.randomize(models[-1])
        return models[-1]

    monkeypatch.setattr("kmlp.pretrained.creation.create_model", created)
    return models


def test_inference_is_the_merged_form_and_answers_as_the_train_form(made):
    desk = Desk()
    for batch in (1, 3):
        case = Case(SOURCE, "inference", XLA, batch, "float32")
        contender, figures = desk.contender(case)
        (train_form,) = made  # the second batch takes the first's merged form
        expected = cases.run(train_form, random_images(batch, (16, 24, 3)))
        assert expected.shape == (batch, 5)
        assert cases.relative_error(contender.run(), expected) < 1e-5
        assert contender.batch == batch
    # Local branches and their norms are gone.
    before = kmlp.profile(train_form)
    assert figures["macs"] < before.macs
    assert figures["parameters"] < before.trainable
    assert figures["image_size"] == (16, 24)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_inference_in_half_precision(precision):
    case = Case(SOURCE, "inference", XLA, 2, precision)
    answer = Desk().contender(case)[0].run()
    assert str(answer.dtype) == precision
    assert np.isfinite(answer.astype("float32")).all()


def test_training_is_a_step_of_adamw(made):
    keras.utils.set_random_seed(0)
    case = Case(SOURCE, "training", XLA, 4, "float32")
    contender, figures = Desk().contender(case)
    (model,) = made
    counted = kmlp.profile(model)
    assert (figures["macs"], figures["parameters"]) == (counted.macs, counted.trainable)
    (bias,) = (w for w in model.trainable_weights if w.shape == (5,))
    before = ops.convert_to_numpy(bias.value).copy()
    logits = cases.run(model, random_images(4, (16, 24, 3)), training=True)
    # The bias' gradient of the cross-entropy, by softmax minus target, and AdamW's
    # first step, which is as long whatever the gradient, but for Keras' epsilon.
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = (shares - np.eye(4, 5)).mean(0)
    assert np.abs(gradient).min() > 1e-3
    rate = contenders.LEARNING_RATE
    step = gradient / (np.abs(gradient) + 1e-7 / np.sqrt(1 - 0.999))
    expected = before * (1 - 0.004 * rate) - rate * step
    contender.run()
    found = ops.convert_to_numpy(bias.value)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * rate)
    contender.run()
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 2


def test_a_training_step_is_of_a_classifier(monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dense(2)])
    monkeypatch.setattr(Source, "model", lambda self, dtype: model)
    with pytest.raises(ValueError, match=r"classifies; --work inference.*'features'"):
        Desk().contender(Case(Source("features"), "training", XLA, 2, "float32"))


@pytest.mark.parametrize(
    ("backend", "xla", "words"),
    [
        ("tensorflow", True, None),
        ("tensorflow", False, None),
        ("jax", True, None),
        ("jax", False, "--xla on"),
        ("torch", True, "--xla off"),
        ("torch", False, None),
    ],
)
def test_xla_is_the_backends_affair(backend, xla, words):
    why = why_not(backend, xla)
    assert (why is None) == (words is None)
    assert words is None or words in why


def test_a_checkpoint_is_timed_in_the_precision_asked_for(tmp_path):
    model = cases.build("resmlp_batch_norm")
    path = tmp_path / "trained.keras"
    model.save(path)
    source = Source(str(tmp_path))
    twin = source.model("bfloat16")
    assert {w.dtype for w in twin.weights} == {"bfloat16"}
    images = cases.images(model)
    a, b = (cases.run(m, images, training=False) for m in (model, twin))
    assert cases.relative_error(b.astype("float32"), a) < 0.1
    same = source.model("float32")
    assert cases.relative_error(cases.run(same, images, training=False), a) < 1e-6


MIB = 2**20


@pytest.mark.skipif(not os.access(devices._RESET, os.W_OK), reason="not Linux")
def test_peak_memory_is_of_the_repeated_work():
    """Weights of 64 MiB, 96 MiB while it runs, 256 MiB once to compile."""

    def make():
        state = {"weights": np.ones(64 * MIB, "uint8")}

        def run():
            first = state.setdefault("size", 256 * MIB)
            state["size"] = 96 * MIB
            return int(np.ones(first, "uint8")[-1])

        return run

    found = contenders.peak_memory(make, XLA)
    # The allocator's own pages; nothing of what compiling took.
    assert abs(found - 160 * MIB) < 8 * MIB


def test_peak_memory_is_none_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_RESET", tmp_path / "missing" / "clear_refs")
    monkeypatch.setattr(devices, "gpu_name", lambda: None)
    assert contenders.peak_memory(None, XLA) is None


def test_the_peak_is_the_best_of_the_turns(monkeypatch):
    peak = Peak("float32", seconds=1e-9, smallest=32)
    assert peak.turn() > 0
    ((size, _),) = peak._sizes.items()
    assert size == 32
    speeds = iter([(5e30, 1.0), (3e30, 1.0), (7e30, 1.0)])
    monkeypatch.setattr(peak, "_speed", lambda size: next(speeds))
    assert [(peak.turn(), peak.value) for _ in range(3)] == [
        (5e30, 5e30),
        (3e30, 5e30),
        (7e30, 7e30),
    ]


@pytest.mark.parametrize(
    ("installed", "configured", "chosen", "expected"),
    [
        (("tensorflow", "jax"), None, None, None),
        (("jax", "torch"), None, None, "jax"),
        (("torch",), None, None, "torch"),
        (("jax", "torch"), "torch", None, None),
        (("jax",), "torch", None, "jax"),
        (("jax",), None, "torch", "torch"),
        ((), None, None, None),
        (("tensorflow", "jax"), "numpy", None, None),
        (("jax",), "openvino", None, None),
    ],
)
def test_keras_gets_a_backend_that_is_there(
    monkeypatch, tmp_path, installed, configured, chosen, expected
):
    monkeypatch.delitem(sys.modules, "keras")
    # Set before it is deleted: else nobody remembers to take back what is written.
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        backend_module.importlib.util, "find_spec", dict(zip(installed, installed)).get
    )
    if configured:
        content = json.dumps({"backend": configured})
        (tmp_path / "keras.json").write_text(content)
    if chosen:
        monkeypatch.setenv("KERAS_BACKEND", chosen)
    settle_backend()
    assert os.environ.get("KERAS_BACKEND") == expected
