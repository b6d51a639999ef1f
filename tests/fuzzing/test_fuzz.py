"""A thousand files that nobody should have sent: `pytest -m fuzz -s`.

Each is made from its seed and goes through the commands that take its form, in a
process that others share until one of them ends it. None may give a traceback, take a
gigabyte or ten seconds, or run what it brings along. `KMLP_FUZZ` says how many there
are of each of the ten forms, `KMLP_FUZZ_SEED` where their seeds begin.
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
EACH = int(os.environ.get("KMLP_FUZZ", 100))
SEED = int(os.environ.get("KMLP_FUZZ_SEED", 0))
MEGABYTES, SECONDS, PATIENCE = 1024, 10, 300
SLOW = ("convert", "create_model", "predict")
PUBLISHED = (*SLOW, "verify")
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


class Costs:
    """What all files cost, as one line."""

    def __init__(self):
        self.tried = self.openings = self.refused = 0
        self.failures = []
        self.memory, self.seconds = (0, ""), (0, "")

    def take(self, name, found):
        """Take an opening's answer, `None` where there was none."""
        self.openings += 1
        if found is None:
            self.failures.append(f"{name}: the process ended or took {PATIENCE} s")
            return
        code, said, seconds = found["code"], found["said"], found["seconds"]
        self.refused += code != 0
        self.memory = max(self.memory, (found["memory"], name))
        self.seconds = max(self.seconds, (seconds, name))
        last = (said.strip().splitlines() or [""])[-1]
        if code not in (0, 1, 2) or "fault of kmlp" in said:
            self.failures.append(f"{name}: {code} {said[-300:]}")
        elif code and "Received" not in last:
            self.failures.append(f"{name}: said {said[-300:]!r}")
        elif found["memory"] > MEGABYTES:
            self.failures.append(f"{name}: {found['memory']:.0f} MB")
        elif min(seconds, found["worked"]) > SECONDS:  # others may use the machine
            self.failures.append(f"{name}: {seconds:.1f} s")

    def add(self, other):
        self.tried += other.tried
        self.openings += other.openings
        self.refused += other.refused
        self.failures += other.failures
        self.memory = max(self.memory, other.memory)
        self.seconds = max(self.seconds, other.seconds)

    def __str__(self):
        return (
            f"{self.tried:,} tried in {self.openings:,} openings, {self.refused:,} "
            f"refused in a line, {len(self.failures)} tracebacks or dearer, largest "
            f"memory {self.memory[0]:.0f} MB ({self.memory[1]}), longest time "
            f"{self.seconds[0]:.1f} s ({self.seconds[1]})"
        )


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    started = Worker(tmp_path_factory.mktemp("worker"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def total():
    costs = Costs()
    yield costs
    print(f"\nall: {costs}")


@pytest.mark.fuzz
@pytest.mark.parametrize("form", mutation.FORMS)
def test_strange_files_cost_what_they_are_worth(form, worker, total, tmp_path):
    costs = Costs()
    for seed in range(SEED, SEED + EACH):
        path = mutation.make(form, seed, tmp_path)
        costs.tried += 1
        for number, entry in enumerate(ENTRIES[form]):
            # What takes longer takes turns.
            if entry in SLOW and len(ENTRIES[form]) > 1 and number % 2 != seed % 2:
                continue
            costs.take(f"{form} {seed} {entry}", worker.ask(path, entry))
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"\n{form}: {costs}")
    total.add(costs)
    assert not costs.failures, "\n".join(costs.failures)
