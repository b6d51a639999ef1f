"""Pictures, and networks that look at them: what saliency and features share."""

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np

from kmlp.commands.plot.plotted_networks import add_networks, check_trained
from kmlp.console import RESOLUTIONS, add_preparation, positive
from kmlp.errors import InputError, KmlpError, RunError

# With which ImageNet's files begin.
_WNID = re.compile(r"^n\d{8}_(?=[A-Za-z])")


@dataclasses.dataclass(frozen=True)
class Viewer:
    """A network with the preparation of its images.

    Attributes:
        label: what stands beside it.
        weights: as `--weights` named it.
        source: its Keras model, or a SavedModel as a function of a tensor.
        prepared: complete `kmlp.preprocessing.Preprocessing`.
        scores: function of logits to scores; `None` where they are not asked for.
        class_names: in the order of the outputs, or `None`.
    """

    label: str
    weights: str
    source: object
    prepared: object
    scores: object = None
    class_names: tuple | None = None

    def picture(self, pixels):
        """Inputs as colours in 0…1, as they were before they were normalised."""
        colours = np.asarray(pixels) * self.prepared.std + self.prepared.mean
        return np.clip(colours, 0, 1)


def add_pictures(command):
    """Adds images, networks and how the ones become the others' input."""
    command.add_argument(
        "images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'"
    )
    add_networks(command)
    add = command.add_argument
    add("--batch-size", type=positive, metavar="N", help="images at once")
    add(
        "--resolution",
        choices=RESOLUTIONS,
        default=RESOLUTIONS[0],
        help="what becomes of spatial kernels at another --image-size "
        f"(default: {RESOLUTIONS[0]})",
    )
    return add_preparation(command, several=True)


def given(options):
    """For each network `{name: value}` of the preparation that was asked for.

    Raises:
        InputError: neither one size for all networks nor one each.
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


def check_weights(weights, shown):
    """Raises `InputError` for weights that nothing can be seen of.

    Args:
        weights: what was named.
        shown: what is drawn of classifiers.
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


def checkpoint_of(weights):
    """The `.keras` file beside a run's SavedModel, else what was named."""
    from kmlp.artifacts.locating import CHECKPOINT, newest

    path = Path(weights).expanduser()
    if path.is_dir() and (newest(path) / CHECKPOINT).is_file():
        return str(newest(path) / CHECKPOINT)
    return str(weights)


def look(viewers, images):
    """Reads and prepares images for every network.

    Args:
        viewers: list of `Viewer`.
        images: paths.

    Returns:
        The paths that can be read, and for each network `(N, S, S, 3)` float32.

    Raises:
        InputError: none can be read.
    """
    from kmlp.data.reading import named
    from kmlp.predicting.classifying import preparation
    from kmlp.quiet import quiet

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


def finish(images, readable):
    """Ends with code 1 where images could not be read.

    Raises:
        InputError: there were some.
    """
    if len(readable) < len(images):
        lost = [path for path in images if path not in readable]
        raise RunError(
            f"{len(lost)} of {len(images)} images cannot be read: replace or leave "
            f"them out. Received: {lost[0]!r}",
        )


def captions(images, class_names):
    """What stands below each picture: its class where its folder names one.

    Args:
        images: paths.
        class_names: of any network.
    """
    known = set(class_names)
    paths = [Path(path) for path in images]
    return [
        p.parent.name if p.parent.name in known else _WNID.sub("", p.stem)
        for p in paths
    ]
