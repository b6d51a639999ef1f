"""The job as a person runs it."""

import functools
import importlib
import inspect
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import few, long
from commands import run_main
from image_folders import truncate, write_folder

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.agreement import ClassAgreement, check_agreement
from kmlp.artifacts.running import load_saved_model, load_tflite
from kmlp.commands import train
from kmlp.errors import KmlpError
from kmlp.models import registry
from kmlp.recipes import recipe_for
from kmlp.training import job, monitor
from kmlp.training.input import in_memory

SCRIPT = pathlib.Path(__file__).parents[2] / "training" / "train.py"
TINY = ("--arch", "resmlp_tiny", "--image-size", "16", "--batch-size", "4")
TINY = (*TINY, "--epochs", "1")


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    tiny = ("ResMLP", {"depth": 1, "width": 16})
    monkeypatch.setitem(registry.VARIANTS, "resmlp_tiny", tiny)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), count=5)


run = functools.partial(run_main, train.main)


def test_folder_to_artifacts(images, tmp_path, capfd):
    command = (*TINY, "--data", images, "--output", tmp_path, "--local-kernels", "1,3")
    for version in (1, 2):
        code, output, error = run(capfd, *command)
        assert (code, error) == (0, "")
        folder = tmp_path / "resmlp_tiny" / str(version)
        assert f"Published {folder}" in output
        assert "fully connected only" in output
        assert sorted(path.name for path in folder.parent.iterdir()) == [
            str(number + 1) for number in range(version)
        ]
    report = json.loads((folder / "report.json").read_text())
    assert report["data"]["class_names"] == ["cat", "dog"]
    assert report["data"]["mean"]
    assert report["recipe"]["epochs"] == 1
    assert (
        report["recipe"] == json.loads((folder / "recipe.json").read_text())["recipe"]
    )
    trained, merged, saved_model, tflite = report["forms"].values()
    assert trained["accuracy"] == merged["accuracy"] == tflite["accuracy"]
    assert merged["trainable_parameters"] < trained["trainable_parameters"]
    assert merged["multiply_adds"] < trained["multiply_adds"]
    assert saved_model["fully_connected_only"]
    assert tflite["fully_connected_only"]
    assert set(trained["latency_ms"]) == {"1", "8"}
    model = keras.models.load_model(folder / "trained.keras")
    batch = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    expected = np.asarray(model(batch, training=False))
    for function in (load_saved_model(folder), load_tflite(folder / "model.tflite")):
        (outputs,) = function(batch).values()
        np.testing.assert_allclose(outputs, expected, atol=1e-4 * abs(expected).max())
    header, row = (folder / "history.csv").read_text().split()
    assert header.startswith("epoch,step,loss,accuracy,val_loss,val_top1,val_top5,")
    assert row.startswith("1,2,")
    assert (folder / "tensorboard").is_dir()
    assert keras.models.load_model(folder / "best.keras").name == "resmlp_tiny"
    for path in (folder, folder / "model.tflite", folder / "trained.keras"):
        found = origin.read(path)
        assert found["weights_sha256"] == origin.weights_sha256(model)
        assert found["class_names"] == ["cat", "dog"]
        assert found["preprocessing"]["mean"] == report["data"]["mean"]
        assert found["accuracies"]["top1"] == trained["accuracy"]
    picture = tf.io.encode_png(np.zeros((20, 30, 3), "uint8"))
    classify = tf.saved_model.load(str(folder)).signatures["classify"]
    answer = classify(image_bytes=picture[None])
    assert set(answer["classes"].numpy()[0]) == {b"cat", b"dog"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        (
            "ConvMLP",
            {"stem_width": 8, "conv_blocks": 1, "widths": (8, 16), "depths": (1, 1)}
            | {"mlp_ratios": (2, 2)},
        ),
        ("MSMLP", {"width": 10, "depths": (1, 1, 1, 1)}),
        ("SMLPNet", {"width": 8, "depths": (1, 1)}),
    ],
)
def test_digits_without_a_convolution(family, arguments, tmp_path, capfd, monkeypatch):
    """Every form is as accurate to the image."""
    name = f"{family.lower()}_tiny"
    monkeypatch.setitem(registry.VARIANTS, name, (family, arguments))
    command = ("--arch", name, "--image-size", "16", "--epochs", "2")
    command = (*command, "--dense", "all", "--output", tmp_path)
    code, output, error = run(capfd, *command)
    assert (code, error) == (0, "")
    assert "dense: all: " in output
    (folder,) = tmp_path.glob("*/1")
    forms = json.loads((folder / "report.json").read_text())["forms"]
    assert {form["accuracy"] for form in forms.values()} == {
        forms["trained"]["accuracy"]
    }
    assert all(forms[name]["convolution_free"] for name in ("SavedModel", "TFLite"))
    assert origin.read(folder)["dense"]["choice"] == "all"


# Case -> (arguments, words of the message). FOLDER and FILE are filled in.
BAD_INPUT = {
    "no arch": ((), "--arch"),
    "unknown arch": (("--arch", "convmpl_s"), "convmlp_s"),
    "unlike any arch": (("--arch", "?"), "one of convmlp_l, "),
    "epochs": (("--arch", "convmlp_s", "--epochs", "0"), "positive integer"),
    "rate": (("--arch", "convmlp_s", "--learning-rate", "nan"), "positive number"),
    "tiny size": (("--arch", "convmlp_s", "--image-size", "4"), "at least 8"),
    "size": (("--arch", "repmlpnet_t224", "--image-size", "40"), "32 or 64"),
    "kernels": (("--arch", "resmlp_s12", "--local-kernels", "2"), "odd"),
    "no kernels": (("--arch", "msmlp_t", "--local-kernels", "1,3"), "1,3"),
    "classes": (("--arch", "resmlp_s12", "--num-classes", "3"), "have 10 classes"),
    "no data": (("--arch", "resmlp_s12", "--data", "FOLDER/no"), "does not exist"),
    "empty data": (("--arch", "resmlp_s12", "--data", "FOLDER"), "empty"),
    "output file": (("--arch", "resmlp_s12", "--output", "FILE"), "Cannot write"),
    "seed": (("--arch", "resmlp_s12", "--seed", "-1"), "--seed"),
    "recipe": (
        ("--arch", "resmlp_s12", "--recipe", "resmlp_imgnet"),
        "resmlp_imagenet",
    ),
    "field": (("--arch", "resmlp_s12", "--set", "mixpu=0"), "mixup"),
    "value": (("--arch", "resmlp_s12", "--set", "mixup=much"), "mixup"),
    "argument": (("--arch", "resmlp_s12", "--set", "model.dept=1"), "depth"),
    "policy": (("--arch", "resmlp_s12", "--set", "policy=rand-x9"), "rand-x9"),
    "micro-batches": (
        ("--arch", "resmlp_s12", "--batch-size", "32", "--set", "accumulate=5"),
        "accumulate must divide batch_size",
    ),
    "large batch": (("--arch", "resmlp_s12", "--batch-size", "4096"), "1,437 images"),
    "teacher": (("--arch", "resmlp_s12", "--teacher", "FOLDER/no"), "FOLDER/no"),
    "no teacher": (
        ("--arch", "resmlp_s12", "--set", "distillation=soft"),
        "set teacher to",
    ),
    "no tfds": (
        ("--arch", "resmlp_s12", "--data", "tfds:cifar100", "--data-dir", "FOLDER"),
        "FOLDER",
    ),
    "workers": (("--arch", "resmlp_s12", "--strategy", "multi_worker"), "TF_CONFIG"),
    "devices": (
        ("--arch", "resmlp_s12", "--strategy", "single", "--devices", "2"),
        "mirrored",
    ),
    "profile": (("--arch", "resmlp_s12", "--profile", "9,3"), "FIRST"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(job, "train", lambda *_, **__: pytest.fail("trained"))
    arguments, words = BAD_INPUT[case]
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("keep me")
    arguments = [
        a.replace("FOLDER", str(empty)).replace("FILE", str(file)) for a in arguments
    ]
    if "--output" not in arguments:
        arguments += ["--output", tmp_path / "output"]
    code, output, error = run(capfd, *arguments)
    assert (code, output) == (2, "")
    assert words.replace("FOLDER", str(empty)) in error
    assert "\n" not in error
    assert file.read_text() == "keep me"
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not an object in JSON"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', 'lacks "task"'),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, '
            '"task": {"type": "worker", "index": 2}}',
            "index must be in 0…1",
        ),
    ],
)
def test_unreadable_cluster(text, words, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    code, output, error = run(capfd, *TINY, "--output", tmp_path / "output")
    assert (code, output) == (2, "")
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("choice", ["stop", long("skip")])
def test_corrupt_image(choice, tmp_path, capfd):
    folder = write_folder(tmp_path / "images")
    truncate(folder / "train/dog/1.jpg")
    arguments = (*TINY, "--data", folder, "--output", tmp_path / "output")
    code, output, error = run(capfd, *arguments, "--on-corrupt", choice)
    if choice == "stop":
        assert code == 2
        assert str(folder / "train/dog/1.jpg") in error
        assert not list((tmp_path / "output").rglob("*.json"))
    else:
        assert (code, error) == (0, "")
        assert f"Skipped 1 image: {folder / 'train/dog/1.jpg'}" in output
        report = tmp_path / "output/resmlp_tiny/1/report.json"
        skipped = json.loads(report.read_text())["data"]["skipped_images"]
        assert skipped == [str(folder / "train/dog/1.jpg")]


# Case -> (where it happens, what happens, exit code, words of the message).
FAILURES = {
    "disagreement": (
        "kmlp.artifacts.running.load_tflite",
        lambda *_, **__: lambda x: {"output_0": np.eye(2)[np.arange(len(x)) % 2]},
        1,
        "TFLite and the trained model disagree in",
    ),
    "interruption": (
        "kmlp.training.job.train",
        KeyboardInterrupt,
        130,
        "interrupted",
    ),
    "interrupted export": (
        "kmlp.artifacts.running.model_latencies",
        KeyboardInterrupt,
        130,
        "interrupted",
    ),
    "full disk": (
        "kmlp.export.tflite.write_tflite",
        OSError(28, "No space left on device"),
        1,
        "No space left",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("case", FAILURES)
def test_failure_publishes_nothing(case, images, tmp_path, capfd, monkeypatch):
    name, effect, expected, words = FAILURES[case]

    def fail(*args, **kwargs):
        if effect is KeyboardInterrupt or isinstance(effect, OSError):
            raise effect
        return effect(*args, **kwargs)

    command = (*TINY, "--data", images, "--output", tmp_path)
    module, _, attribute = name.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(module), attribute, fail)
        code, _, error = run(capfd, *command)
    assert code == expected
    assert words in error
    assert "\n" not in error
    folder = tmp_path / "resmlp_tiny"
    assert not list(folder.glob("[0-9]*"))
    # What was trained is not trained again.
    code, output, _ = run(capfd, *command)
    assert code == 0
    assert ("Going on at step 2 of 2" in output) == (case != "interruption")
    assert [path.name for path in folder.iterdir()] == ["1"]


@pytest.mark.long
def test_a_disk_that_fills_up_while_training(images, tmp_path, capfd, monkeypatch):
    def full(path, rows):
        raise OSError(28, "No space left on device", str(path))

    command = (*TINY, "--data", images, "--output", tmp_path, "--checkpoint-steps", "1")
    with monkeypatch.context() as patch:
        patch.setattr(monitor, "write_rows", full)
        code, _, error = run(capfd, *command)
    assert code == 1
    assert "No space left on device" in error
    assert "\n" not in error
    assert run(capfd, *command)[0] == 0


def test_an_image_that_vanishes_while_training(tmp_path, capfd, monkeypatch):
    folder = write_folder(tmp_path / "images", count=5)
    # As if the images were too many to be kept in memory.
    monkeypatch.setattr(in_memory, "allowance", lambda: 0)
    command = (*TINY, "--data", folder, "--output", tmp_path / "output")
    started = monitor.Monitor.begin

    def begin(self, *arguments):
        started(self, *arguments)
        for path in (folder / "train/cat").iterdir():
            path.rename(path.with_suffix(".gone"))

    with monkeypatch.context() as patch:
        patch.setattr(monitor.Monitor, "begin", begin)
        code, _, error = run(capfd, *command)
    assert code == 1
    # TensorFlow's own lines come before: see `run`.
    last = error.splitlines()[-1]
    assert last.startswith("train.py: An image can no longer be read")
    assert str(folder / "train/cat") in last
    assert "No such file" in last


def test_nan_loss(images, tmp_path, capfd):
    arguments = ("--data", images, "--output", tmp_path, "--learning-rate", "1e30")
    code, _, error = run(capfd, *TINY[:-1], "9", *arguments)
    assert code == 1
    assert "smaller --learning-rate" in error
    assert not (tmp_path / "resmlp_tiny").exists()


@pytest.mark.long
def test_same_seed_same_weights(images, tmp_path, capfd):
    def weights(name, seed):
        arguments = ("--data", images, "--output", tmp_path / name, "--seed", seed)
        assert run(capfd, *TINY, *arguments, "--set", "drop_path=0.2")[0] == 0
        model = keras.models.load_model(tmp_path / name / "resmlp_tiny/1/trained.keras")
        return np.concatenate([w.ravel() for w in model.get_weights()])

    first = weights("first", 1)
    np.testing.assert_array_equal(first, weights("again", 1))
    assert not np.array_equal(first, weights("other", 2))


def _compared(found, expected, labels):
    measure = ClassAgreement()
    measure.add({"a": found}, {"a": expected}, labels, np.ones(len(labels)))
    return measure.result()


def test_ties_are_no_disagreement():
    labels = np.array([0, 1])
    expected = np.array([[1.0, 1.0 - 1e-6, 0.0], [0.0, 3.0, 1.0]])
    swapped = expected.copy()
    swapped[0, :2] = swapped[0, 1::-1]
    result = _compared(swapped, expected, labels)
    assert (result["ties"], result["disagreements"]) == (1, 0)
    result = _compared(np.roll(expected, 1, axis=1), expected, labels)
    assert result["disagreements"] == 1
    result = _compared(expected * np.nan, expected, labels)
    assert result["disagreements"] == 2
    with pytest.raises(KmlpError, match="merged and the trained"):
        check_agreement({"merged": result})


@pytest.mark.parametrize(
    "arch",
    few(
        kmlp.list_models(),
        *("repmlpnet_t224", "resmlp_s12", "convmlp_s", "msmlp_t", "smlpnet_t"),
    ),
)
def test_every_architecture_fits_the_embedded_data(arch):
    recipe = recipe_for(arch, embedded=True)
    family, arguments = registry.variant(arch)
    shape = (recipe.image_size, recipe.image_size, 3)
    arguments = {**arguments, **recipe.model, "input_shape": shape}
    # Shallow, as only sizes and patches matter.
    if "depth" in inspect.signature(family).parameters:
        arguments["depth"] = 1
    else:
        depths = inspect.signature(family).parameters["depths"].default
        arguments["depths"] = (1,) * len(arguments.get("depths", depths))
    model = family(**arguments)
    assert model.pyramid_outputs


def test_script_runs_from_anywhere(tmp_path):
    started = time.monotonic()
    shown = subprocess.run(
        [sys.executable, SCRIPT, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--arch" in shown.stdout
    assert time.monotonic() - started < 5  # no TensorFlow
    stopped = subprocess.run(
        [sys.executable, SCRIPT, "--arch", "convmlp_s", "--data", "nowhere"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == 2
    assert stopped.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_interrupted(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-u", SCRIPT, "--arch", "resmlp_s12", "--output", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The log level of the tests is not what a person has.
        env={k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"},
    )
    for line in process.stdout:
        if line.startswith("Epoch 1"):
            break
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().count("\n") == 0
    assert "Stopped by SIGINT after step" in error
    (folder,) = (tmp_path / "resmlp_s12").iterdir()
    assert folder.name.startswith("unfinished-")


@pytest.mark.long
@pytest.mark.parametrize(
    "arch", ["convmlp_s", "resmlp_s12", "repmlpnet_t224", "msmlp_t", "smlpnet_t"]
)
def test_digits(arch, tmp_path, capfd):
    code, _, error = run(capfd, "--arch", arch, "--output", tmp_path)
    assert (code, error) == (0, "")
    report = json.loads((tmp_path / arch / "1/report.json").read_text())
    for form in report["forms"].values():
        assert form["accuracy"] >= 0.97
