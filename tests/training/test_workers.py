"""The job on two worker processes, one of which is lost and comes back."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = str(Path(__file__).resolve().parents[2] / "training" / "train.py")
COMMAND = (
    *("--arch", "resmlp_s12", "--epochs", "12", "--checkpoint-steps", "20"),
    *("--set", "model.depth=2", "model.width=32"),
)
WORKERS = 2


def addresses():
    """Addresses that were free a moment ago."""
    sockets = [socket.socket() for _ in range(WORKERS)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def start(output, workers, index):
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": workers}, "task": task}
    return subprocess.Popen(
        [sys.executable, "-u", SCRIPT, *COMMAND, "--output", output / str(index)],
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
