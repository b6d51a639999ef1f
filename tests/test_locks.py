"""Locks on files and folders: between threads, between processes, after a kill."""

import errno
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmlp.errors import InputError
from kmlp.locks import hold, hold_in_turn
from kmlp.training.checkpoints import RunFolder

HOLDER = """
import sys, time
from pathlib import Path
from kmlp.locks import hold
held = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(request):
    """Return a function that holds a path in another process."""

    def started(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE
        )
        request.addfinalizer(process.wait)
        request.addfinalizer(process.kill)
        assert process.stdout.readline() == b"held\n"
        return process

    return started


def test_a_second_holder_waits_for_its_turn_or_leaves(tmp_path):
    path, waits = tmp_path / "x", threading.Event()
    held = hold(path)
    assert held.exclusive
    assert hold(path) is None
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(hold_in_turn, path, waits.set)
        assert waits.wait(60)
        assert not job.done()
        held.release()
        second = job.result(60)
    assert hold(path) is None
    second.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_ends_with_its_process(tmp_path, other):
    path = tmp_path / "x"
    process = other(path)
    assert hold(path) is None
    process.kill()
    process.wait()
    held = hold(path)
    assert held.exclusive
    held.release()
    assert not list(tmp_path.iterdir())


def test_a_run_is_one_process_s(tmp_path, other):
    run = RunFolder(tmp_path, {})
    process = other(run.path)
    message = r"Another process is at this run.*Received"
    with pytest.raises(InputError, match=message), run.open(fresh=False):
        pass
    process.kill()
    process.wait()
    with run.open(fresh=False):
        assert hold(run.path) is None


def test_a_plain_file_of_that_name_is_no_obstacle(tmp_path):
    file = tmp_path / ".x.lock"
    file.write_text("1234")
    hold(tmp_path / "x").release()
    assert not file.exists()


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def acquire(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("kmlp.locks.FileLock.acquire", acquire)
    assert not hold(tmp_path / "x").exclusive
    with RunFolder(tmp_path, {}).open(fresh=False) as run:
        run.write("recipe.json", {})
