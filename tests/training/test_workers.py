"""The job on several worker processes: one is lost, and comes back or does not, or
was started otherwise than the rest.
"""

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from image_folders import write_folder

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "training" / "train.py")
COMMAND = (
    *("--arch", "resmlp_s12", "--epochs", "12", "--checkpoint-steps", "20"),
    *("--set", "model.depth=2", "model.width=32"),
)
WORKERS = 2


def addresses(count=WORKERS):
    """Addresses that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def start(output, workers, index, *more, script=SCRIPT):
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": workers}, "task": task}
    return subprocess.Popen(
        [
            sys.executable,
            "-u",
            script,
            *COMMAND,
            "--output",
            output / str(index),
            *more,
        ],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def history(output):
    """Rows of the curve without what depends on the clock."""
    with open(output / "0/resmlp_s12/1/history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    timing = ("seconds", "images_per_second")
    return np.array(
        [[float(v) for k, v in row.items() if k not in timing] for row in rows]
    )


@pytest.mark.long
def test_a_worker_is_lost_and_returns(tmp_path):
    whole = tmp_path / "whole"
    workers = addresses()
    processes = [start(whole, workers, index) for index in range(WORKERS)]
    for process in processes:
        shown, _ = process.communicate(timeout=300)
        assert process.returncode == 0, shown

    cut = tmp_path / "cut"
    workers = addresses()
    chief, other = (start(cut, workers, index) for index in range(WORKERS))
    for line in chief.stdout:
        if line.startswith("Epoch 3/"):
            break
    other.send_signal(signal.SIGKILL)
    other.communicate()
    other = start(cut, workers, 1)
    shown, _ = chief.communicate(timeout=300)
    assert chief.returncode == 0, shown
    other.communicate(timeout=60)
    assert other.returncode == 0
    assert "Another worker is gone" in shown
    assert "Going on at step " in shown
    np.testing.assert_allclose(history(cut), history(whole), rtol=1e-5)


# Seconds within which each process ends once all are there or one is lost; half of it
# goes into importing TensorFlow again, on busy cores.
BOUND = 180


def ended(processes, since):
    """What processes print to their end, each within its time, and with which code."""
    found = []
    try:
        for process in processes:
            left = max(1, since + BOUND - time.monotonic())
            shown, _ = process.communicate(timeout=left)
            found.append((shown.splitlines(), process.returncode))
    finally:
        for process in processes:
            process.kill()
    return found


def until(process, words):
    """Read a process's lines until one begins with some words."""
    for line in process.stdout:
        if line.startswith(words):
            return
    raise AssertionError(f"{words} was never said")


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("killed", [0, 1], ids=["chief", "worker"])
def test_each_process_tells_that_one_is_gone(killed, count, tmp_path):
    workers, more = addresses(count), ("--epochs", "400", "--patience", "20")
    processes = [start(tmp_path, workers, index, *more) for index in range(count)]
    until(processes[0], "Epoch 2/")
    gone, since = processes.pop(killed), time.monotonic()
    gone.kill()
    gone.communicate()
    missing = f"Missing: {workers[killed]}" if killed else "cannot meet at"
    for lines, code in ended(processes, since):
        *_, lost, last = lines
        assert code == 2
        assert lost.startswith("Another worker is gone or no longer answers: ")
        assert lost.endswith(" Waiting for all workers, time 1 of 10.")
        assert last.startswith("train.py: ")
        assert missing in last
    print(f"{count} processes ended in {time.monotonic() - since:.0f} s")


def other_code(folder):
    """A clone of which one file has a line more."""
    ignored = shutil.ignore_patterns("__pycache__", "logs")
    for part in ("kmlp", "training"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    with open(folder / "kmlp" / "algebra.py", "a") as file:
        file.write("# another line\n")
    return (), {"script": folder / "training" / "train.py"}


def data(count):
    """Images of a folder, so many of each class."""
    return lambda folder: (("--data", write_folder(folder, count=count)), {})


DIFFERS = "Worker {0} differs from worker 0 in "
# How the last worker is started, and what all say, or what the others do.
OTHERS = {
    "option": (
        lambda _: (("--learning-rate", "0.5"), {}),
        DIFFERS + "--learning-rate: .* Received: 0.5 of worker {0}, none of worker 0",
    ),
    "code": (
        other_code,
        DIFFERS + 'the code of kmlp: .*"[0-9a-f]{{12}}" of worker {0}, "',
    ),
    "data": (data(40), DIFFERS + "recipe.*, .* of worker 0"),
    "too few": (data(3), "(Worker {0} cannot begin: )?A batch takes more images than "),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("other", "count"),
    [
        *(("option", 2), ("code", 2), ("data", 2), ("too few", 2)),
        *(("option", 4), ("code", 4)),
    ],
)
def test_each_process_tells_that_one_was_started_otherwise(other, count, tmp_path):
    begin, told = OTHERS[other]
    more, script = begin(tmp_path / "other")
    workers, since = addresses(count), time.monotonic()
    processes = [start(tmp_path, workers, index) for index in range(count - 1)]
    processes.append(start(tmp_path, workers, count - 1, *more, **script))
    for lines, code in ended(processes, since):
        assert code == 2
        own = [line for line in lines if not line.startswith("Reading ")]
        assert len(own) == 1, lines
        assert re.match(f"train.py: {told.format(count - 1)}", own[0])
    print(f"{count} processes ended in {time.monotonic() - since:.0f} s")
