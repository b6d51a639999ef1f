"""A thousand files that nobody should have sent: `pytest -m fuzz -s`.

Each is made from its seed and goes through the commands that take its form, in a
process that others share until one of them ends it. None may give a traceback, take a
gigabyte or ten seconds, or run what it brings along.
"""

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import mutation
import pytest

WORKER = Path(__file__).with_name("worker.py")
EACH = int(os.environ.get("KMLP_FUZZ", 100))  # files of each of the ten forms
SEED = int(os.environ.get("KMLP_FUZZ_SEED", 0))
MEGABYTES, SECONDS, PATIENCE = 1024, 10, 300
PUBLISHED = ("convert", "create_model", "predict", "verify")
ENTRIES = {
    **dict.fromkeys(("zip", "legacy", "npz", "safetensors", "hdf5"), PUBLISHED),
    "weights": ("create_model",),
    "keras": ("info", "predict", "create_model", "verify"),
    "tflite": ("info", "audit", "predict", "verify"),
    "SavedModel": ("info", "audit", "predict", "verify"),
    "origin": ("info", "json", "predict", "create_model"),
}


class Worker:
    """The process that opens the files."""

    def __init__(self, folder):
        self.folder, self.process = folder, None

    def start(self):
        words = [sys.executable, str(WORKER), str(self.folder)]
        with open(self.folder / "stderr", "ab") as errors:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self._line(900) == {"ready": True}

    def ask(self, path, entry):
        if self.process is None:
            self.start()
        print(
            json.dumps({"path": str(path), "entry": entry}),
            file=self.process.stdin,
            flush=True,
        )
        found = self._line(PATIENCE)
        if found is None:
            self.end()
        return found

    def _line(self, patience):
        ready, _, _ = select.select([self.process.stdout], [], [], patience)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line else None

    def end(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    started = Worker(tmp_path_factory.mktemp("worker"))
    yield started
    started.end()


@pytest.mark.fuzz
@pytest.mark.parametrize("form", mutation.FORMS)
def test_a_thousand_files(form, worker, tmp_path):
    failures, worst = [], {"memory": (0, ""), "seconds": (0, "")}
    refused = asked = 0
    for seed in range(SEED, SEED + EACH):
        path = mutation.make(form, seed, tmp_path)
        # Every file goes through the cheap ones and one of the others.
        for number, entry in enumerate(ENTRIES[form]):
            if entry in PUBLISHED[:3] and number % 2 != seed % 2 and form != "weights":
                continue
            asked += 1
            name = f"{form} {seed} {entry}"
            found = worker.ask(path, entry)
            if found is None:
                failures.append(f"{name}: the process ended or took {PATIENCE} s")
                continue
            refused += found["code"] != 0
            for what in worst:
                worst[what] = max(worst[what], (found[what], name))
            lines = found["said"].strip().splitlines()
            if found["code"] not in (0, 1, 2) or "fault of kmlp" in found["said"]:
                failures.append(f"{name}: {found['code']} {found['said'][-300:]}")
            elif found["code"] and not (lines and "Received" in lines[-1]):
                failures.append(f"{name}: said {found['said'][-300:]!r}")
            elif found["memory"] > MEGABYTES:
                failures.append(f"{name}: {found['memory']:.0f} MB")
            elif min(found["seconds"], found["worked"]) > SECONDS:
                failures.append(f"{name}: {found['seconds']:.1f} s")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    memory, seconds = worst["memory"], worst["seconds"]
    print(
        f"\n{form}: {EACH} tried, {asked} openings, {refused} refused, "
        f"{len(failures)} tracebacks or dearer, largest memory {memory[0]:.0f} MB "
        f"({memory[1]}), longest time {seconds[0]:.1f} s ({seconds[1]})"
    )
    assert not failures, "\n".join(failures)
