"""Show images to networks: what saliency and features share."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.commands.arguments import (
    RESOLUTIONS,
    Parser,
    add_preparation,
    add_resolution,
    positive,
)
from kmlp.commands.plot.plotted import add_networks, check_trained
from kmlp.errors import InputError, KmlpError, RunError

# With which ImageNet's files begin.
_WNID = re.compile(r"^n\d{8}_(?=[A-Za-z])")


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A network with the preparation of its images.

    Attributes:
        label: Name that stands beside it.
        weights: Weights as `--weights` named them.
        source: Keras model, or a SavedModel as a function of a tensor.
        prepared: Complete `Preprocessing`.
        scores: Function of logits to scores; `None` where they are not asked for.
        class_names: Names in the order of the outputs, or `None`.
    """

    label: str
    weights: str
    source: Any
    prepared: Any
    scores: Any = None
    class_names: tuple | None = None

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Return inputs as colours in 0…1, as they were before they were normalised."""
        colours = np.asarray(pixels) * self.prepared.std + self.prepared.mean
        return np.clip(colours, 0, 1)


def add_pictures(parser: Parser) -> tuple[str, ...]:
    """Add images, networks, and how the ones become the others' input.

    Returns:
        The names of the values of the preparation.
    """
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'"
    )
    add_networks(parser)
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="images at once"
    )
    add_resolution(parser, default=RESOLUTIONS[0])
    return add_preparation(parser, several=True)


def given(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return for each network the preparation that was asked for, by name.

    Raises:
        InputError: If there is neither one size for all networks nor one each.
    """
    count = len(options.weights)
    sizes = options.image_size or (None,)
    if len(sizes) not in (1, count):
        raise InputError(
            f"--image-size takes one size for all networks, or one for each of the "
            f"{count}, with commas between them. "
            f"Received: --image-size {','.join(map(str, sizes))}"
        )
    values = {name: getattr(options, name) for name in options.preparation}
    found = [{**values, "image_size": size} for size in np.resize(sizes, count)]
    return [{k: v for k, v in one.items() if v is not None} for one in found]


def check_weights(weights: str, shown: str) -> None:
    """Refuse weights of which nothing can be seen.

    Args:
        weights: Weights as they were named.
        shown: Subject and verb of what is drawn of classifiers.

    Raises:
        InputError: If they are of another kind of network, or closed.
    """
    from kmlp.artifacts.locating import TFLITE, locate
    from kmlp.predicting.dense_network import task_of

    check_trained(weights)
    try:
        _, form = locate(checkpoint_of(weights))
    except KmlpError:
        form = None  # published weights, or what is explained where it is opened
    if form == TFLITE:
        raise InputError(
            f"{shown} drawn of networks whose inside is open, and a TFLite file has "
            "neither derivatives nor maps: pass the .keras checkpoint that it was made "
            f"of. Received: {str(weights)!r}"
        )

    if (task := task_of(weights)) is not None:
        raise InputError(
            f"{shown} drawn of classifiers, and these weights are for {task}: "
            "`kmlp predict --overlays FOLDER` draws what they find. "
            f"Received: {str(weights)!r}"
        )


def checkpoint_of(weights: str) -> str:
    """Return the `.keras` file beside a run's SavedModel, else what was named."""
    from kmlp.artifacts.locating import CHECKPOINT, newest

    path = Path(weights).expanduser()
    if path.is_dir() and (newest(path) / CHECKPOINT).is_file():
        return str(newest(path) / CHECKPOINT)
    return str(weights)


def look(
    viewers: Sequence[Viewer], images: Sequence[str]
) -> tuple[list[str], list[np.ndarray]]:
    """Read and prepare images for every network.

    Args:
        viewers: Networks.
        images: Paths.

    Returns:
        The paths that can be read, and for each network `(N, S, S, 3)` float32.

    Raises:
        RunError: If none can be read.
    """
    from kmlp.console import quiet
    from kmlp.data.reading import named
    from kmlp.predicting.classifying import preparation

    found = [[] for _ in viewers]
    readable = []
    prepare = [preparation(viewer.prepared) for viewer in viewers]
    with quiet():  # TensorFlow talks of what it cannot decode
        pixels = [[one(path) for one in prepare] for path in images]
    for path, own in zip(images, pixels):
        if any(part is None for part in own):
            print(f"{named([path])} cannot be read", file=sys.stderr)
            continue
        readable.append(path)
        for parts, part in zip(found, own):
            parts.append(part)
    if not readable:
        raise RunError(
            "None of the images can be read: pass JPEG or PNG files. "
            f"Received: {images[0]!r}",
        )
    return readable, [np.stack(parts) for parts in found]


def finish(images: Sequence[str], readable: Sequence[str]) -> None:
    """Say at the end that images could not be read.

    Raises:
        RunError: If there were some.
    """
    if len(readable) < len(images):
        lost = [path for path in images if path not in readable]
        raise RunError(
            f"{len(lost)} of {len(images)} images cannot be read: replace or leave "
            f"them out. Received: {lost[0]!r}",
        )


def captions(images: Sequence[str], class_names: Sequence[str]) -> list[str]:
    """Return what stands below each picture: its class where its folder names one.

    Args:
        images: Paths.
        class_names: Names of any network's classes.
    """
    known = set(class_names)
    paths = [Path(path) for path in images]
    return [
        p.parent.name if p.parent.name in known else _WNID.sub("", p.stem)
        for p in paths
    ]
