"""Names of the variables in a saved state: unique, and alike in every process."""

import re
from collections.abc import Mapping

import keras
import numpy as np

from kmlp.keras_internals import flat_layers


def weight_names(model: keras.Model) -> dict[str, keras.Variable]:
    """Return `{name: variable}` of a model's weights, without seed generators.

    The name is the path. Numbers that Keras appends to unnamed layers count what was
    built before in the process; here they count what has the same name beside it.
    """
    weights = list(model.weights)
    return dict(zip(_stable([v.path for v in weights]), weights))


def frozen(model: keras.Model) -> set[int]:
    """Return ids of the weights that nothing in training moves: of frozen layers.

    Other weights that are not trainable, such as BatchNorm's statistics, move.
    """
    layers = [layer for layer in flat_layers(model) if not layer.trainable]
    return {id(weight) for layer in layers for weight in layer.weights}


def optimizer_names(
    optimizer: keras.Optimizer, model: keras.Model
) -> dict[str, keras.Variable]:
    """Return `{name: variable}` of an optimizer's state.

    What belongs to a weight is called after it, such as `head/dense/kernel/momentum`.
    """
    # Keras flattens the weight's path into the name, which two paths can share;
    # variables of one role come in the order of the weights.
    owners: dict[str, list[str]] = {}
    for name, weight in weight_names(model).items():
        if weight.trainable:
            owners.setdefault(weight.path.replace("/", "_") + "_", []).append(name)
    prefixes = sorted(owners, key=len, reverse=True)
    used: dict[str, int] = {}
    names = []
    for variable in optimizer.variables:
        prefix = next((p for p in prefixes if variable.name.startswith(p)), None)
        if prefix is None:
            names.append(variable.name)
            continue
        turn = used[variable.name] = used.get(variable.name, -1) + 1
        owner = owners[prefix][min(turn, len(owners[prefix]) - 1)]
        names.append(f"{owner}/{variable.name.removeprefix(prefix)}")
    return dict(zip(_unique(names), optimizer.variables))


def _stable(paths):
    """Return paths whose suffixes count siblings, not the process's layers."""
    ranks = {}  # (parent, stem) -> {segment: rank}

    def renamed(path: str) -> str:
        parent: tuple[str, ...] = ()
        parts = []
        for segment in path.split("/"):
            stem = re.sub(r"_\d+$", "", segment)
            siblings = ranks.setdefault((parent, stem), {})
            rank = siblings.setdefault(segment, len(siblings))
            parts.append(f"{stem}_{rank}" if rank else stem)
            parent += (segment,)
        return "/".join(parts)

    return _unique([renamed(path) for path in paths])


def _unique(names):
    """Return names with `#2`, `#3`, … appended to repetitions."""
    seen = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return result


def mismatch(
    state: Mapping[str, np.ndarray], named: Mapping[str, keras.Variable]
) -> str:
    """Say in a line how a state does not fit the variables; `""` where it does."""
    expected = {name: spec(v)[0] for name, v in named.items()} | {"step": ()}
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} {tuple(np.shape(state[name]))} in place of {shape}"
        for name, shape in expected.items()
        if name in state and tuple(np.shape(state[name])) != shape
    ]
    parts = [
        f"{title}: {', '.join(found[:4])}{' …' if len(found) > 4 else ''}"
        f" ({len(found)} in all)"
        for title, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if found
    ]
    if not parts:
        return ""
    return (
        "The checkpoint does not fit this run: resume with the options it was written "
        "with, or start in another folder. Received: " + "; ".join(parts)
    )


def spec(variable: keras.Variable) -> tuple[tuple[int, ...], str]:
    """Return shape and name of the dtype of a variable."""
    return tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)


def is_float(variable: keras.Variable) -> bool:
    """Return whether a variable holds floating-point numbers."""
    return "float" in keras.backend.standardize_dtype(variable.dtype)
