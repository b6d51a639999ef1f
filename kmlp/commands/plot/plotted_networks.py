"""The networks that a plot is about."""

import dataclasses
import os
from pathlib import Path

import keras

from kmlp.artifacts.locating import run_name
from kmlp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with the name that stands beside it.

    Attributes:
        label: the architecture's or folder's name; where two are alike, the path.
        model: a `keras.Model` in the form that was saved.
        preprocessing: of its images, a `kmlp.preprocessing.Preprocessing`, or `None`.
    """

    label: str
    model: keras.Model
    preprocessing: object | None


def add_networks(command, several=True):
    """Adds `--weights`, which may be given once for each network."""
    command.add_argument(
        "--weights",
        required=True,
        action="append" if several else "store",
        metavar="NAME|FILE|FOLDER",
        help="a run's or a preset's folder, a .keras file, a published file or name "
        "(`kmlp list --weights`)" + "; once for each network" * several,
    )


def open_networks(weights):
    """Opens networks by what `--weights` named, in order.

    Raises:
        InputError: nothing such, or nothing that can be read.
    """
    from kmlp.pretrained.creation import create_model

    models = []
    for path in weights:
        check_trained(path)
        models.append(create_model(weights=path))
    return [
        Network(label, model, getattr(model, "preprocessing", None))
        for label, model in zip(labels_of(weights, models), models)
    ]


def check_trained(weights):
    """Refuse the name of an architecture, which has learned nothing yet."""
    from kmlp.models.ablations import ABLATIONS
    from kmlp.models.registry import VARIANTS

    if not os.path.exists(weights) and weights in {**VARIANTS, **ABLATIONS}:
        raise InputError(
            "An architecture has learned nothing yet: pass a run's folder, a .keras "
            "file, or published weights by name and tag (`kmlp list --weights`). "
            f"Received: {weights!r}"
        )


def labels_of(weights, models):
    """What stands beside networks; the path where two would be called alike."""
    labels = [_label(path, model) for path, model in zip(weights, models)]
    return [
        label if labels.count(label) == 1 else str(path)
        for path, label in zip(weights, labels)
    ]


def _label(path, model):
    """`convmlp_s` of `saved_models/convmlp_s/1`, `convmlp_s.shi_in1k` of that name."""
    if not os.path.exists(path):
        return str(path)
    path = Path(path).resolve()
    name = path.stem if path.is_file() else run_name(path)
    return name if name != "trained" else model.name
