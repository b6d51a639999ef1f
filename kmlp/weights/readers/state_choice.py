"""Which of the states in a checkpoint file is meant."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kmlp.errors import InputError
from kmlp.weights.readers import torch_pickle

# Where trainers keep the state; averaged weights are taken only for want of others.
_STATE_KEYS = ("model", "state_dict", "model_ema", "state_dict_ema")
_MAX_NESTING = 3


def select_names(
    names: list[str], key: str | None, path: Path
) -> tuple[dict[str, str], str]:
    """Map the names to return to those in a flat file; the key that was taken."""
    for wanted in ("state", *_STATE_KEYS) if key is None else (key,):
        prefix = f"{wanted}/"
        chosen = {n.removeprefix(prefix): n for n in names if n.startswith(prefix)}
        if chosen:
            return chosen, wanted
    if key is not None:
        groups = sorted({name.rpartition("/")[0] for name in names if "/" in name})
        raise InputError(
            f"key must be None or among the prefixes {groups} of {path}. "
            f"Received: key={key!r}"
        )
    return {name: name for name in names}, ""


def select_mapping(
    tree: Any, key: str | None, path: Path
) -> tuple[dict[str, torch_pickle.Tensor], str]:
    """Pick the mapping of tensors meant by `key` among those nested in `tree`."""
    states = dict(_mappings(tree))
    found = {"/".join(names): names for names in states if names}
    if key is not None:
        if key not in found:
            raise InputError(
                f"key must be None or among {list(found)} of {path}. "
                f"Received: key={key!r}"
            )
        return states[found[key]], key
    rank = {name: place for place, name in enumerate(_STATE_KEYS)}
    known = [p for p in states if all(name in rank for name in p)]
    if not known:
        hint = f"; name one of {list(found)} by key=" if found else ""
        raise InputError(
            f"A checkpoint must hold a mapping of names to tensors{hint}. "
            f"Received: {path}, which holds {_describe(tree)}"
        )
    # A mapping ranks after those inside it: a trainer may keep single tensors, such
    # as the best accuracy, beside the state.
    best = min(known, key=lambda p: [*(rank[name] for name in p), len(rank)])
    return states[best], "/".join(best)


def _mappings(
    tree: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, torch_pickle.Tensor]]]:
    if not isinstance(tree, dict):
        return
    named = {name: value for name, value in tree.items() if isinstance(name, str)}
    tensors = {n: v for n, v in named.items() if isinstance(v, torch_pickle.Tensor)}
    if tensors:
        yield path, tensors
    # A pickled mapping can contain itself.
    if len(path) < _MAX_NESTING:
        for name, value in named.items():
            yield from _mappings(value, (*path, name))


def _describe(tree: Any) -> str:
    if isinstance(tree, torch_pickle.Foreign):
        return f"a pickled {tree.origin} (save its state_dict() instead)"
    if isinstance(tree, dict):
        return f"entries {list(tree)[:8]}"
    return f"a {type(tree).__name__}"
