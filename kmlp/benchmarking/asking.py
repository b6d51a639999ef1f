"""The parent's side of a backend's process."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile

from kmlp.errors import InputError

COMMAND = (sys.executable, "-m", "kmlp.benchmarking.worker")
# Several processes share a GPU: none takes all of its memory for itself.
_SHARED = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
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
        backend: `"tensorflow"`, `"jax"` or `"torch"`.
        device: `"cpu"` or `"gpu"`.
        command: the program; `None`: the one of this package.
    """

    def __init__(self, backend, device, command=None):
        self.backend = backend
        environment = {**os.environ, "KERAS_BACKEND": backend, **_SHARED}
        if device == "cpu":
            environment |= _CPU_ONLY
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, as long as the process
        # In a session of its own: Ctrl-C reaches the parent, which ends it.
        self._process = subprocess.Popen(
            command or COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def alive(self):
        """Whether it may still be asked."""
        return self._process.poll() is None

    def ask(self, question, **arguments):
        """The answer to a question.

        Raises:
            ValueError: what was asked for is wrong, whoever is asked.
            Failed: it does not work on this backend, or the process has ended.
        """
        try:
            pickle.dump((question, arguments), self._process.stdin)
            self._process.stdin.flush()
            kind, value = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise Failed(self._end()) from None
        if kind == "input":
            raise InputError(value)
        if kind == "failed":
            raise Failed(value)
        return value

    def close(self):
        """Ends the process, whatever it does."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            # What was still to be sent has nobody to read it.
            with contextlib.suppress(OSError):
                pipe.close()

    def _end(self):
        """How the process ended, in one line."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed, as happens where memory runs out"
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended ({how}): {lines[-1][:300] if lines else 'no word'}"
