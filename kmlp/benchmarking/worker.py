"""A backend's process, which is asked through a pipe and answers: both ends of it.

`python -m kmlp.benchmarking.worker`, with `KERAS_BACKEND` in the environment. A
request is a pickled `(question, arguments)`, an answer `("answer", value)`,
`("input", message)` where what was asked for is wrong, or `("failed", message)` where
it does not work here. The process ends with its input, whatever it is doing.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from kmlp.console import first_line, import_quietly
from kmlp.errors import InputError, KmlpError

COMMAND = (sys.executable, "-m", "kmlp.benchmarking.worker")
# Several processes share a GPU: none takes all of its memory for itself.
_SHARED = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_KILLED = 9  # SIGKILL, a name that Windows lacks
_CPU_ONLY = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


class Failed(Exception):
    """A backend's process could not do what it was asked for; the others may."""


class Worker:
    """A process in which Keras runs on one backend.

    ```python
    with Worker("jax", "cpu") as worker:
        worker.ask("start", device="cpu", threads=2, precision="float32")
    ```

    Args:
        backend: Keras backend, `"tensorflow"`, `"jax"` or `"torch"`.
        device: Device, `"cpu"` or `"gpu"`.
        command: Program and its arguments.
    """

    def __init__(
        self, backend: str, device: str, command: Sequence[str] = COMMAND
    ) -> None:
        self.backend = backend
        environment = {**os.environ, "KERAS_BACKEND": backend, **_SHARED}
        if device == "cpu":
            environment |= _CPU_ONLY
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process
        # In a session of its own: Ctrl-C reaches the parent, which ends it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )
        self._asked: Any = self._process.stdin
        self._answers: Any = self._process.stdout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def alive(self) -> bool:
        """Return whether the worker's process still runs."""
        return self._process.poll() is None

    def ask(self, question: str, **arguments: Any) -> Any:
        """Return the answer to a question.

        Raises:
            InputError: If what is asked for is wrong, whoever is asked.
            Failed: If it does not work on this backend, or the process has ended.
        """
        try:
            pickle.dump((question, arguments), self._asked)
            self._asked.flush()
            kind, value = pickle.load(self._answers)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise Failed(self._end()) from None
        if kind == "input":
            raise InputError(value)
        if kind == "failed":
            raise Failed(value)
        return value

    def close(self) -> None:
        """End the process, whatever it does."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for pipe in (self._asked, self._answers, self._said):
            # Nobody is left to read the rest.
            with contextlib.suppress(OSError):
                pipe.close()

    def _end(self):
        """Return how the process ended, in one line."""
        code = self._process.wait()
        if code == -_KILLED:
            return "its process was killed, as happens where memory runs out"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended ({how}): {lines[-1][:300] if lines else 'no word'}"


def answer(desk: Any, question: str, arguments: dict[str, Any]) -> tuple[str, Any]:
    """Return an answer, whatever happens."""
    try:
        return "answer", getattr(desk, question)(**arguments)
    except KmlpError as error:
        return "input", " ".join(str(error).split())
    except ValueError as error:
        return "failed", first_line(error)[:300]
    except Exception as error:
        return "failed", f"{type(error).__name__}: {first_line(error)[:300]}"


def listen(asked: queue.SimpleQueue) -> None:
    """Pass questions on; where the parent is gone, end what is being done."""
    try:
        while True:
            asked.put(pickle.load(sys.stdin.buffer))
    except EOFError:
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def main() -> None:
    """Answer until no more questions come."""
    # Output that libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=listen, args=(asked,), daemon=True).start()
    import_quietly(settle=False, needed=False)
    from kmlp.benchmarking.contenders import Desk

    desk = Desk()
    while True:
        pickle.dump(answer(desk, *asked.get()), answers)
        answers.flush()


if __name__ == "__main__":
    main()
