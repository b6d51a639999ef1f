"""Choose the Keras backend that a process starts with."""

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")


def settle_backend() -> None:
    """Name a backend that is installed, where Keras would ask for one that is not.

    Keras takes TensorFlow unless its environment or its file says otherwise, and then
    fails on a machine that has JAX or PyTorch alone. A choice that somebody made by
    `KERAS_BACKEND`, or for another backend by the file, stays.
    """
    if "keras" in sys.modules or "KERAS_BACKEND" in os.environ:
        return
    configured = _configured()
    if configured not in BACKENDS or _installed(configured):
        return
    for name in BACKENDS:
        if _installed(name):
            os.environ["KERAS_BACKEND"] = name
            return


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _configured() -> str:
    """Return the backend of Keras' file, by default TensorFlow."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    try:
        return json.loads((home / "keras.json").read_text("utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return BACKENDS[0]
