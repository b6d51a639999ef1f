"""Weights that `weights=` names: a checkpoint of the catalogue, a file, a folder."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import keras

from kmlp import models
from kmlp.artifacts.locating import locate_checkpoint
from kmlp.budget import Budget
from kmlp.console import first_line
from kmlp.errors import InputError, KmlpError, RunError
from kmlp.keras_internals import weights_within
from kmlp.models.registry import variant
from kmlp.preprocessing import Preprocessing
from kmlp.typing import Config, PathLike, Shape
from kmlp.weights.catalogue import (
    DEFAULT,
    WEIGHTS,
    PublishedWeights,
    class_names,
    published_weights,
)
from kmlp.weights.checkpoint_forms import read_state
from kmlp.weights.downloads import cache_path, download, sha256_of
from kmlp.weights.recognition import recognise
from kmlp.weights.strict_loading import load_published

KERAS, KERAS_WEIGHTS = ".keras", ".weights.h5"
_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".npz", ".safetensors", ".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class Found:
    """Weights on the disk.

    Attributes:
        architecture: Name that was asked for, or `None`.
        path: Path of the file.
        entry: Entry of the catalogue, or `None`.
    """

    architecture: str | None
    path: Path
    entry: PublishedWeights | None = None

    @property
    def is_published(self) -> bool:
        """Return whether the file has published names, not Keras' own."""
        return not self.path.name.endswith((KERAS, KERAS_WEIGHTS))


def find(architecture: str | None, weights: Any) -> Found:
    """Find the weights that a tag or a path stands for; fetch them where they must be.

    Args:
        architecture: Name of `kmlp.list_models()`, or `None`.
        weights: Tag of the architecture, `"default"`, or a path.

    Raises:
        InputError: If `weights` is neither a tag nor a path of anything, or a folder
            without a checkpoint.
        OSError: If they cannot be fetched.
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise InputError(
            "`weights` is None, a tag of list_weights(), or a path. "
            f"Received: weights={weights!r}"
        )
    path = Path(weights).expanduser()
    if not _is_path(architecture, weights, path):
        entry = _entry(architecture, str(weights))
        return Found(entry.architecture, download(entry), entry)
    if not path.exists():
        raise InputError(
            "`weights` names a file or folder that does not exist. "
            f"Received: weights={str(weights)!r}"
        )
    if path.is_dir():
        path = locate_checkpoint(path)
    return Found(architecture, path, _entry_of_file(architecture, path))


def _is_path(architecture, weights, path):
    text = str(weights)
    if isinstance(weights, os.PathLike) or Path(text).name != text:
        return True
    if text == DEFAULT or f"{architecture}.{text}" in WEIGHTS or text in WEIGHTS:
        return False
    return path.exists() or text.endswith((*_SUFFIXES, KERAS))


def _entry(architecture, tag):
    """Return the catalogue's entry of `tag`, or of `architecture.tag`."""
    if architecture is None:
        architecture, _, tag = tag.partition(".")
        if not tag:
            raise InputError(
                "A tag needs the name of its architecture, and nothing of this name is "
                f"a file or folder. Received: name=None, weights={architecture!r}"
            )
    return published_weights(architecture, tag)


def _entry_of_file(architecture, path):
    """Return the entry of a file with its published name or the cache's, or `None`."""
    if path.suffix == KERAS:
        return None
    entries = [e for e in named(path) if architecture in (None, e.architecture)]
    if len(entries) != 1:
        return None
    known = entries[0].sha256
    # Another file under that name, such as a fine-tuned one, is not the published.
    return entries[0] if known is None or sha256_of(path).startswith(known) else None


def named(path: Path) -> list[PublishedWeights]:
    """Return the catalogue's entries that a file has the published name of, or ours."""
    return [
        entry
        for entry in WEIGHTS.values()
        if path.name in (_file_name(entry), cache_path(entry).name)
    ]


def verify(path: PathLike) -> PublishedWeights:
    """Compare a published file with the catalogue's hash, and return its entry.

    Args:
        path: Path of a file with its published name, or the cache's.

    Raises:
        InputError: If there is no such entry, or its publishers give no hash.
        RunError: If it is another file.
    """
    path = Path(path)
    received = f"Received: {str(path)!r}"
    known = [entry for entry in named(path) if entry.sha256]
    if not known:
        raise InputError(
            "This file has no digest to compare it with: none of `kmlp list "
            f"--weights` with a hash has its name. {received}"
        )
    found = sha256_of(path)
    for entry in known:
        if found.startswith(entry.sha256 or ""):
            return entry
    raise RunError(
        f"This file is not what was published as {known[0].name}: it has sha256 "
        f"{found}, not {known[0].sha256}; fetch it again. {received}"
    )


def _file_name(entry):
    return PurePosixPath(urlsplit(entry.address).path).name


def load(
    found: Found,
    num_classes: int | None,
    input_shape: Shape | None,
    overrides: Config,
) -> tuple[keras.Model, int | None]:
    """Build a model with published weights, at the size that they were trained at.

    Args:
        found: Weights on the disk.
        num_classes: Classes of the model; `None`: those of the weights.
        input_shape: Shape of images, which counts where the weights fit any size or
            `block_size` is given.
        overrides: Further arguments of the family's class.

    Returns:
        Tuple `(model, classes of the weights' own head)`, 0 where they have none.

    Raises:
        InputError: If the file cannot be read or does not fit.
    """
    entry = found.entry
    state = promised(read_state(found.path), entry)
    seems = recognise(state)
    _check_name(seems, found)
    own_classes = seems.arguments["num_classes"]
    changes = dict(overrides)
    if "input_shape" not in seems.arguments or "block_size" in overrides:
        changes["input_shape"] = input_shape or _own_shape(found)
    changes["num_classes"] = own_classes if num_classes is None else num_classes
    with weights_within(Budget(found.path), len(state)):
        model = _built(seems, found, changes)
    new_head = changes["num_classes"] not in (0, own_classes)
    load_published(model, state, new_head=new_head)
    model.preprocessing = preprocessing(entry, model, own_classes)
    model.weights_source = source(found)
    return model, own_classes


def promised(
    state: Mapping[str, Any], entry: PublishedWeights | None
) -> Mapping[str, Any]:
    """Return a state without the head where its authors offer none.

    What is in its place then, as in DINO's checkpoints, is of the training alone.
    """
    if entry is None or entry.num_classes:
        return state
    return {k: v for k, v in state.items() if not k.startswith("head.")}


def _check_name(seems, found):
    """Refuse weights of another architecture before a model is built."""
    name = found.architecture
    if name is None:
        return
    family, _ = variant(name)
    if seems.family is not family or seems.architecture not in (None, name):
        raise InputError(
            f"These weights seem to be of {seems}, not of {name}: leave the name out "
            f"or correct it. Received: {str(found.path)!r}"
        )


def _own_shape(found):
    """Return the trained size of weights without spatial kernels, if known."""
    if found.entry is not None:
        return (found.entry.image_size, found.entry.image_size, 3)
    return None


def _built(seems, found, changes):
    """Return the model with fresh weights; a structure without a name gets its own."""
    changes, name = {k: v for k, v in changes.items() if v is not None}, None
    if seems.architecture is None:
        name = found.architecture
    try:
        if name is not None:
            return models.create_model(name, **{**seems.arguments, **changes})
        return seems.build(**changes)
    except KmlpError:
        raise
    except ValueError as error:  # of Keras
        raise InputError(
            f"These weights seem to be of {seems}, and there is no such network "
            f"({first_line(error)[:200]}). Received: {str(found.path)!r}"
        ) from error


def preprocessing(
    entry: PublishedWeights | None, model: Any, own_classes: int
) -> Preprocessing | None:
    """Return what the catalogue says of images, with names where the head is theirs."""
    if entry is None:
        return None
    kept = model.include_top and model.num_classes == own_classes == entry.num_classes
    known = Preprocessing(
        mean=entry.mean,
        std=entry.std,
        image_size=entry.image_size,
        test_crop=entry.test_crop,
        test_interpolation=entry.test_interpolation,
        class_names=class_names(entry.labels) if kept else None,
        found=(entry.name,),
    )
    return known.for_size(*model.inputs[0].shape[1:3])


def source(found: Found) -> dict[str, Any]:
    """Describe where the weights come from, as an origin keeps it."""
    known = {"file": found.path.name, "sha256": sha256_of(found.path)}
    if found.entry is not None:
        names = ("name", "address", "licence", "top1", "metric")
        known = {**{n: getattr(found.entry, n) for n in names}, **known}
    return known
