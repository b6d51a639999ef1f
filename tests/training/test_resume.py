"""The job, killed and given again: nothing of it may show in the result."""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from image_folders import write_folder

import kmlp  # noqa: F401, its layers are found by name

SCRIPT = str(Path(__file__).resolve().parents[2] / "training" / "train.py")
# Stochastic depth, every augmentation, averages and clipping: all that is random or
# remembered.
COMMAND = (
    *("--arch", "resmlp_s12", "--recipe", "resmlp_imagenet", "--image-size", "32"),
    *("--epochs", "3", "--batch-size", "8", "--log-steps", "1"),
    *("--checkpoint-steps", "2"),
    *("--set", "model.depth=2", "model.width=16", "drop_path=0.3", "ema=0.9"),
    *("--set", "clip_norm=1", "accumulate=2"),
)
COUNT = 40  # images of a class


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"), count=COUNT)


def start(images, output, *more):
    command = [*COMMAND, "--data", images, "--output", output, *more]
    return subprocess.Popen(
        [sys.executable, "-u", SCRIPT, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(images, output, *more):
    """The job to its end; what it printed."""
    process = start(images, output, *more)
    shown, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return shown


def outcome(output):
    """Weights, the best ones, and curves."""
    folder = output / "resmlp_s12/1"
    curves = []
    for name in ("history.csv", "steps.csv"):
        with open(folder / name, newline="") as file:
            rows = list(csv.DictReader(file))
        timing = ("seconds", "images_per_second")
        curves.append([{k: v for k, v in r.items() if k not in timing} for r in rows])
    weights = [
        keras.models.load_model(folder / name, compile=False).get_weights()
        for name in ("trained.keras", "best.keras")
    ]
    return curves, [np.concatenate([w.ravel() for w in ws]) for ws in weights]


def assert_same(outcomes, expected):
    (curves, weights), (expected_curves, expected_weights) = outcomes, expected
    assert curves == expected_curves
    for values, whole in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(values, whole)


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    finish(images, output)
    return outcome(output)


def kill_after(process, words, seconds=0.0):
    """Kills a job a while after it has printed some words; what it left running."""
    for line in process.stdout:
        if line.startswith(words):
            break
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.long
def test_killed_in_the_middle(images, tmp_path, uninterrupted):
    kill_after(start(images, tmp_path), "Epoch 2")
    # The lock of a killed run stays beside its folder, and holds nobody off.
    (folder,) = (p for p in (tmp_path / "resmlp_s12").iterdir() if p.is_dir())
    newest = max((folder / "checkpoints").glob("*.npz"))
    newest.write_bytes(newest.read_bytes()[:-100])  # the disk was not spared either
    shown = finish(images, tmp_path)
    assert "Going on at step " in shown
    assert [path.name for path in (tmp_path / "resmlp_s12").iterdir()] == ["1"]
    assert_same(outcome(tmp_path), uninterrupted)


# Lines after which the job is killed, and within how many seconds: while it starts,
# traces, steps, writes checkpoints, and exports.
MOMENTS = 3 * [("Recipe", 1.0), ("Recipe", 6.0)] + 2 * [("Epoch", 0.5)]
MOMENTS += 2 * [("Merging", 2.0)]


@pytest.mark.long
def test_killed_at_ten_random_moments(images, tmp_path):
    draw = random.Random(0)
    longer = ("--epochs", "40")
    finish(images, tmp_path / "whole", *longer)
    for words, seconds in MOMENTS:
        process = start(images, tmp_path / "cut", *longer)
        kill_after(process, words, seconds * draw.random())
        assert process.returncode == -signal.SIGKILL
    finish(images, tmp_path / "cut", *longer)
    assert_same(outcome(tmp_path / "cut"), outcome(tmp_path / "whole"))
