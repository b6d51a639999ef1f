"""Collects what the backend in use can run."""

import gc
import os
from pathlib import Path

# Must stand before TensorFlow is imported, whose lines several workers would mix.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

import kmlp  # noqa: F401

# Keras' first backend in the environment or its configuration; export, callbacks
# and the training job need TensorFlow, everything else runs on any backend.
_NEEDS_TENSORFLOW = [
    "compression",
    "export",
    "jobs",
    "serving",
    "training",
    "test_benchmarking.py",
    "test_callbacks.py",
]

collect_ignore = [] if keras.backend.backend() == "tensorflow" else _NEEDS_TENSORFLOW


def pytest_configure(config):
    """Files come to several workers in their own order.

    In that of their numbers of tests the slow files, which have few, come last, and one
    worker does them while the others wait.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark the long cases of a check that has quick ones."""

    def check(item):
        return item.path, getattr(item, "originalname", item.name)

    quick = {check(item) for item in items if not item.get_closest_marker("long")}
    for item in items:
        if item.get_closest_marker("long") and check(item) in quick:
            item.add_marker("again")


def pytest_terminal_summary(terminalreporter):
    """Write the ids of skipped tests to the file that `KMLP_SKIPPED` names.

    `.ci/run` runs them again where the optional packages are installed.
    """
    path = os.environ.get("KMLP_SKIPPED")
    if path:
        skipped = terminalreporter.stats.get("skipped", [])
        ids = dict.fromkeys(report.nodeid for report in skipped)
        Path(path).write_text("".join(f"{name}\n" for name in ids))


def pytest_collection_finish():
    """What collection imported stays, a million objects: they are not searched again.

    A full search takes a second with them, and there are hundreds: a sixth of the time.
    """
    _keep()


@pytest.fixture(autouse=True)
def _compared_once(request, monkeypatch):
    """Quick tests compare forms themselves: merging need not, unless it is the test."""
    long = request.node.get_closest_marker("long")
    if not long and request.path.name not in ("test_divergence.py", "test_states.py"):
        monkeypatch.setattr("kmlp.merging.check_equal", lambda *_: None)


@pytest.fixture(autouse=True, scope="module")
def _kept():
    """Nor is what a module's tests leave behind, in caches and graphs."""
    yield
    _keep()


def _keep():
    gc.collect()
    gc.freeze()
