"""Show images to networks: what saliency and features share."""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Sequence
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
from kmlp.commands.plot.plotted import add_networks, check_trained, labels_of
from kmlp.console import progress_bar
from kmlp.data.pictures import KINDS
from kmlp.errors import InputError, KmlpError, RunError

# With which ImageNet's files begin.
_WNID = re.compile(r"^n\d{8}_(?=[A-Za-z])")


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A network with the preparation of its images.

    Attributes:
        weights: Weights as `--weights` named them.
        source: Keras model, or a SavedModel as a function of a tensor.
        prepared: Complete `Preprocessing`.
        class_names: Names in the order of the outputs, or `None`.
        scores: Function of logits to scores; `None` where they are not asked for.
        of_class: Class that is explained; `None` for the network's choice.
        label: Name that stands beside the network.
    """

    weights: str
    source: Any
    prepared: Any
    class_names: tuple[str, ...] | None = None
    scores: Any = None
    of_class: int | None = None
    label: str = ""

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Return inputs as colours in 0…1, as they were before they were normalised."""
        colours = np.asarray(pixels) * self.prepared.std + self.prepared.mean
        return np.clip(colours, 0, 1)


def add_pictures(parser: Parser) -> None:
    """Add images, networks, and how the ones become the others' input."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'"
    )
    add_networks(parser)
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="images at once"
    )
    add_resolution(parser, default=RESOLUTIONS[0])
    parser.set_defaults(preparation=add_preparation(parser, several=True))


def show(
    options: argparse.Namespace,
    subject: str,
    open_viewer: Callable[[str, str, dict[str, Any], argparse.Namespace], Viewer],
    seen: Sequence[Callable[[Viewer, np.ndarray], Any]],
    draw: Callable[..., Any],
) -> Iterator[Any]:
    """Yield the figure of what networks see, then say which images were lost.

    Args:
        options: Options of the command.
        subject: Subject and verb of what is drawn of classifiers.
        open_viewer: Function of the weights as they were named, what is opened, and
            the preparation that was asked for.
        seen: Functions of a network and its prepared images, `(N, S, S, 3)` float32, to
            what is drawn; of each there is one part for each network.
        draw: Function of the parts and the images' `names` to the figure.

    Raises:
        InputError: If there are no such images or weights.
        RunError: If some of the images cannot be read.
    """
    from kmlp.data.image_files import images_of

    preparations = _given(options)
    listing = images_of(options.images)
    images = listing.paths
    listing.say(file=sys.stderr)
    for weights in options.weights:
        _check_weights(weights, subject)
    viewers = [
        open_viewer(weights, _checkpoint_of(weights), values, options)
        for weights, values in zip(options.weights, preparations)
    ]
    labels = labels_of(options.weights, [viewer.source for viewer in viewers])
    viewers = [dataclasses.replace(v, label=own) for v, own in zip(viewers, labels)]
    readable, inputs = _look(viewers, images)
    parts = []
    with progress_bar(len(viewers) * len(seen), "map") as bar:
        for viewer, pixels in zip(viewers, inputs):
            for see in seen:
                parts.append(see(viewer, pixels))
                bar.update()
    known = {name for viewer in viewers for name in viewer.class_names or ()}
    yield draw(parts, names=[_caption(Path(path), known) for path in readable])
    if lost := [path for path in images if path not in readable]:
        raise RunError(
            f"{len(lost)} of {len(images)} images cannot be read: replace or leave "
            f"them out. Received: {lost[0]!r}",
        )


def _given(options):
    """Return for each network the preparation that was asked for, by name."""
    count = len(options.weights)
    sizes = options.image_size or (None,)
    if len(sizes) not in (1, count):
        raise InputError(
            f"--image-size takes one size for all networks, or one for each of the "
            f"{count}, with commas between them. "
            f"Received: --image-size {','.join(map(str, sizes))}"
        )
    values = {name: getattr(options, name) for name in options.preparation}
    return [{**values, "image_size": size} for size in np.resize(sizes, count)]


def _check_weights(weights, subject):
    """Refuse weights of another kind of network, or closed ones."""
    from kmlp.artifacts.locating import ONNX, OPENVINO, TFLITE, locate
    from kmlp.predicting.dense_network import task_of

    check_trained(weights)
    try:
        _, form = locate(_checkpoint_of(weights))
    except KmlpError:
        form = None  # published weights, or what is explained where it is opened
    if form in (TFLITE, ONNX, OPENVINO):
        raise InputError(
            f"{subject} drawn of networks whose inside is open, and this {form} "
            "has neither derivatives nor maps: pass the .keras checkpoint that it was "
            f"made of. Received: {str(weights)!r}"
        )

    if (task := task_of(weights)) is not None:
        raise InputError(
            f"{subject} drawn of classifiers, and these weights are for {task}: "
            "`kmlp predict --overlays FOLDER` draws what they find. "
            f"Received: {str(weights)!r}"
        )


def _checkpoint_of(weights):
    """Return the `.keras` file beside a run's SavedModel, else what was named."""
    from kmlp.artifacts.locating import CHECKPOINT, newest

    path = Path(weights).expanduser()
    if path.is_dir() and (newest(path) / CHECKPOINT).is_file():
        return str(newest(path) / CHECKPOINT)
    return str(weights)


def _look(viewers, images):
    """Return the paths that can be read, and for each network its prepared images."""
    from kmlp.console import quiet
    from kmlp.data.reading import named
    from kmlp.predicting.classifying import preparation

    prepare = [preparation(viewer.prepared) for viewer in viewers]
    with quiet():  # TensorFlow talks of what it cannot decode
        pixels = {path: [one(path) for one in prepare] for path in images}
    for path in images:
        if any(part is None for part in pixels[path]):
            print(f"{named([path])} cannot be read", file=sys.stderr)
            del pixels[path]
    if not pixels:
        raise RunError(
            f"None of the images can be read: pass files of {KINDS}. "
            f"Received: {images[0]!r}",
        )
    return list(pixels), [np.stack(parts) for parts in zip(*pixels.values())]


def _caption(path, class_names):
    """Return what stands below a picture: its class where its folder names one."""
    return (
        path.parent.name
        if path.parent.name in class_names
        else _WNID.sub("", path.stem)
    )
