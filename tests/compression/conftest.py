"""Collects what the extra `optimize` makes possible."""

import importlib.util

_NEEDED = ("tensorflow_model_optimization", "tf_keras")

collect_ignore_glob = (
    [] if all(map(importlib.util.find_spec, _NEEDED)) else ["test_*.py"]
)
