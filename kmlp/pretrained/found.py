"""What `weights=` stands for: a checkpoint of the catalogue, a file or a folder."""

import dataclasses
import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kmlp.artifacts.locating import locate_checkpoint
from kmlp.errors import InputError
from kmlp.weights.catalogue import (
    DEFAULT,
    WEIGHTS,
    PublishedWeights,
    published_weights,
)
from kmlp.weights.downloads import cache_path, download

KERAS, KERAS_WEIGHTS = ".keras", ".weights.h5"
_SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".npz", ".safetensors", ".h5", ".hdf5")


@dataclasses.dataclass(frozen=True)
class Found:
    """Weights on the disk.

    Attributes:
        architecture: as it was asked for, or `None`.
        path: of the file.
        entry: of the catalogue, or `None`.
    """

    architecture: str | None
    path: Path
    entry: PublishedWeights | None = None

    @property
    def is_published(self):
        """Whether the file has published names, not Keras' own."""
        return not self.path.name.endswith((KERAS, KERAS_WEIGHTS))


def find(architecture, weights):
    """The weights that a tag or a path stands for, fetched where they must be.

    Args:
        architecture: of `kmlp.list_models()`, or `None`.
        weights: a tag of the architecture, `"default"`, or a path.

    Returns:
        A `Found`.

    Raises:
        InputError: neither a tag nor a path of anything.
        InputError: a folder without a checkpoint.
        OSError: not to be fetched.
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
    if isinstance(weights, os.PathLike) or os.sep in text:
        return True
    if text == DEFAULT or f"{architecture}.{text}" in WEIGHTS or text in WEIGHTS:
        return False
    return path.exists() or text.endswith((*_SUFFIXES, KERAS))


def _entry(architecture, tag):
    """The catalogue's entry of `tag`, or of `architecture.tag`."""
    if architecture is None:
        architecture, _, tag = tag.partition(".")
        if not tag:
            raise InputError(
                "A tag needs the name of its architecture, and nothing of this name is "
                f"a file or folder. Received: name=None, weights={architecture!r}"
            )
    return published_weights(architecture, tag)


def _entry_of_file(architecture, path):
    """The entry of a file that has its published name or the cache's, or `None`."""
    if path.suffix == KERAS:
        return None
    entries = [
        entry
        for entry in WEIGHTS.values()
        if path.name in (_file_name(entry), cache_path(entry).name)
        and architecture in (None, entry.architecture)
    ]
    if len(entries) != 1:
        return None
    known = entries[0].sha256
    # Another file under that name, such as a fine-tuned one, is not the published.
    return entries[0] if known is None or sha256_of(path).startswith(known) else None


def sha256_of(path):
    """The hash of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_name(entry):
    return PurePosixPath(urlsplit(entry.address).path).name
