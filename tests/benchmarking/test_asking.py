"""The pipe to a backend's process, with a program that stands for it."""

import pathlib
import pickle
import sys
import threading
import time

import keras
import pytest

from kmlp.benchmarking.contenders import Desk
from kmlp.benchmarking.worker import Failed, Worker, answer
from kmlp.errors import InputError, KmlpError

STANDIN = (sys.executable, str(pathlib.Path(__file__).parent / "standin_worker.py"))


@pytest.fixture
def worker():
    with Worker("jax", "cpu", STANDIN) as worker:
        yield worker


def test_answers_come_back(worker):
    for value in ({"a": (1, 2)}, {"b": "ä" * 100_000}):
        assert worker.ask("echo", **value) == value
    names = ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS")
    found = worker.ask("environment", names=names)
    assert found == dict(zip(names, ("jax", "", "cpu")))
    with Worker("torch", "gpu", STANDIN) as other:
        found = other.ask("environment", names=("KERAS_BACKEND", "JAX_PLATFORMS"))
    assert found["KERAS_BACKEND"] == "torch"
    assert found["JAX_PLATFORMS"] != "cpu"


def test_what_is_wrong_and_what_fails_are_told_apart(worker):
    with pytest.raises(ValueError, match="no such network"):
        worker.ask("raise", kind="input", message="no such network")
    with pytest.raises(Failed, match="out of memory"):
        worker.ask("raise", kind="failed", message="out of memory")
    assert worker.alive
    assert worker.ask("echo", a=1) == {"a": 1}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("kill", "killed, as happens where memory runs out"),
        ("exit", r"ended \(exit code 3\): OddError: no such thing"),
    ],
)
def test_an_end_is_told(worker, question, words):
    for _ in range(2):  # who asks again hears the same
        with pytest.raises(Failed, match=words):
            worker.ask(question)
    assert not worker.alive


def test_closing_ends_a_process_that_is_busy():
    worker = Worker("jax", "cpu", STANDIN)
    failures = []

    def ask():
        try:
            worker.ask("sleep")
        except Failed as error:
            failures.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    begun = time.monotonic()
    worker._process.kill()
    asking.join(10)
    worker.close()
    assert time.monotonic() - begun < 5
    assert not worker.alive
    assert "killed" in failures[0]


def test_the_process_ends_with_its_parents_pipe():
    with Worker("jax", "cpu", STANDIN) as worker:
        worker.ask("echo")
        worker._process.stdin.close()
        assert worker._process.wait(10) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("no\n  network"), ("input", "no network")),
        (KmlpError("another size"), ("input", "another size")),
        (ValueError("no classes\nbelow"), ("failed", "no classes")),
        (MemoryError(), ("failed", "MemoryError: MemoryError")),
        (RuntimeError("x" * 999), ("failed", "RuntimeError: " + "x" * 300)),
    ],
)
def test_errors_become_answers(monkeypatch, error, expected):
    def raising(self):
        raise error

    monkeypatch.setattr(Desk, "product", raising)
    found = answer(Desk(), "product", {})
    assert found == expected
    assert pickle.loads(pickle.dumps(found)) == expected


def test_a_busy_process_ends_with_its_parent():
    """Also where the parent had no time to say so."""
    program = (
        "import time\n"
        "from kmlp.benchmarking.contenders import Desk\n"
        "from kmlp.benchmarking.worker import main\n"
        "Desk.product = lambda self: time.sleep(600)\n"
        "main()\n"
    )
    backend = keras.backend.backend()
    with Worker(backend, "cpu", (sys.executable, "-c", program)) as worker:
        # An unknown question is a failure, and tells that it listens.
        with pytest.raises(Failed, match="AttributeError"):
            worker.ask("nothing")
        pickle.dump(("product", {}), worker._process.stdin)
        worker._process.stdin.close()
        assert worker._process.wait(20) == 0
