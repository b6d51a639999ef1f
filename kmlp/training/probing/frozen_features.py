"""Features of images: computed once, and kept in a file on request."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np

from kmlp.atomic import new_file
from kmlp.console import first_line, progress_bar
from kmlp.data.reading import evaluation_batches, read
from kmlp.errors import InputError, RunError

REMEDY = "replace or remove it, or pass --on-corrupt skip to go on with the rest"
_ARRAYS = ("train", "train_labels", "validation", "validation_labels")


@dataclasses.dataclass(frozen=True)
class Features:
    """Features of a data set's images, by which weights are judged.

    Attributes:
        train, validation: `(N, C)` float32.
        train_labels, validation_labels: `(N,)` class numbers.
    """

    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray


def features(file, described, compute):
    """The features in a file, or new ones, which are then kept in it.

    Args:
        file: path of an `.npz` file, or `None`: nothing is kept.
        described: of what network, images and preparation they are, as JSON has it.
        compute: function without arguments to `Features`.

    Raises:
        InputError: a file that cannot be read or written, or of other features.
    """
    if file is None:
        return compute()
    file = Path(file).expanduser()
    if file.exists():
        return _kept(file, described)
    found = compute()
    text = np.frombuffer(json.dumps(described).encode(), "uint8")
    try:
        with new_file(file) as draft, open(draft, "wb") as target:
            np.savez(target, of=text, **{n: getattr(found, n) for n in _ARRAYS})
    except OSError as error:
        raise RunError(f"--features: {error}") from error
    return found


def _kept(file, described):
    try:
        with np.load(file, allow_pickle=False) as arrays:
            of = json.loads(arrays["of"].tobytes())
            found = Features(*(arrays[name] for name in _ARRAYS))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            "--features names a file that holds none, or is damaged: remove it or name "
            f"another. Received: {str(file)!r} ({first_line(error)[:200]})"
        ) from error
    other = [name for name in described if of.get(name) != described[name]]
    if other:
        raise InputError(
            f"--features names a file of other features: {', '.join(other)} differ. "
            f"Remove it or name another. Received: {str(file)!r}"
        )
    print(f"Features from {file}", flush=True)
    return found


def computed(run, split, prepared, *, batch_size, title):
    """Features and labels of a split's images, in its order.

    Args:
        run: function of `(N, S, S, 3)` arrays to `(N, C)`.
        split: `kmlp.data.images.Split`.
        prepared: `Preprocessing`, complete.
        batch_size: of the network.
        title: of the progress bar.

    Returns:
        `(features, labels)`, float32 `(N, C)` and int32 `(N,)`, without images that
        were skipped as unreadable.

    Raises:
        InputError: an image that cannot be read, or features that are not finite.
    """
    batches = evaluation_batches(
        split, prepared, image_size=prepared.image_size, batch_size=batch_size
    )
    bar = progress_bar(split.count, "img", desc=title, unit_scale=True)
    found, labels, count = None, np.empty(split.count, "int32"), 0
    with bar:
        for images, classes, kept in read(batches, REMEDY):
            real = kept > 0
            values = run(images)[real]
            if found is None:
                found = np.empty((split.count, values.shape[1]), "float32")
            end = count + len(values)
            found[count:end], labels[count:end] = values, classes[real]
            count = end
            bar.update(len(values))
    if not np.isfinite(found[:count]).all():
        raise RunError(
            "The weights give features that are not finite: they are damaged, or "
            "trained to divergence.",
        )
    return found[:count], labels[:count]
