"""The files that `kmlp benchmark --json` writes, read back."""

import json

from kmlp.benchmarking import findings
from kmlp.benchmarking.form_report import from_data
from kmlp.errors import InputError


def read(path):
    """What a benchmark's file holds.

    Returns:
        The `Findings` of a benchmark of backends; or of one of forms a tuple of
        `Benchmark`s, one per network.

    Raises:
        InputError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if isinstance(data, dict) and data["kind"] == findings.KIND:
            return findings.from_data(data)
        if isinstance(data, list) and data:
            return tuple(from_data(one) for one in data)
        raise ValueError("something else")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            "This is no file that `kmlp benchmark … --json FILE` has written, or a "
            f"damaged one. Received: {str(path)!r} ({type(error).__name__}: {error})"
        ) from error
