"""Print a line for each image, and write the files beside the lines."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from kmlp.commands.arguments import RESOLUTIONS
from kmlp.data.reading import named
from kmlp.errors import InputError, RunError
from kmlp.predicting import detecting, segmenting
from kmlp.predicting.classifying import open_classifier, predict
from kmlp.predicting.dense_network import open_dense_network
from kmlp.predicting.image_files import images_of

# Objects of lower scores are mostly none; files of results have them all.
SCORE = 0.3


def print_classes(options: argparse.Namespace) -> None:
    """Print the likeliest classes of each image, by a classifier."""
    images = images_of(options.images)
    classifier = open_classifier(
        options.weights,
        arch=options.arch,
        given={name: getattr(options, name) for name in options.preparation},
        resolution=options.resolution or RESOLUTIONS[0],
    )
    predictions = predict(
        classifier,
        images,
        top=options.top or 5,
        batch_size=options.batch_size or 32,
    )
    found = []

    def _in_words(prediction):
        found.append(_plain(prediction))
        return ", ".join(f"{name} {score:.1%}" for name, _, score in prediction.classes)

    _print_all(
        images,
        ((p.image, p.classes is not None, p) for p in predictions),
        _in_words,
        finish=lambda: _write_json(options.json, found),
    )


def _plain(prediction):
    classes = [
        {"name": name, "index": index, "score": score}
        for name, index, score in prediction.classes
    ]
    return {"image": prediction.image, "classes": classes}


def print_objects(options: argparse.Namespace) -> None:
    """Print the objects of each image, by a detector."""
    images = images_of(options.images)
    overlays = _Pictures(options.overlays, "--overlays")
    network = open_dense_network(options.weights)
    names = network.class_names
    score = options.score or SCORE
    entries, numbers = [], {image: n for n, image in enumerate(images, 1)}

    def _line(detected):
        image = detected.image
        if options.json is not None:
            known = network.preprocessing
            entries.extend(detecting.coco_entries(detected, numbers[image], known))
        overlays.save(image, lambda: detecting.overlay(detected, names, score))
        return detecting.in_words(detected, names, score)

    found = detecting.detect(network, images, batch_size=options.batch_size or 8)
    _print_all(
        images,
        ((d.image, d.picture is not None, d) for d in found),
        _line,
        finish=lambda: _write_json(options.json, entries),
    )


def print_maps(options: argparse.Namespace) -> None:
    """Print the share of each class in each image, by a segmenter."""
    images = images_of(options.images)
    overlays = _Pictures(options.overlays, "--overlays")
    maps = _Pictures(options.maps, "--maps")
    network = open_dense_network(options.weights, any_size=True)
    names = network.class_names
    way = segmenting.way_of(
        network, mode=options.mode, scales=options.scales, flip=options.flip
    )
    found = []

    def _line(segmented):
        overlays.save(segmented.image, lambda: segmenting.overlay(segmented, names))
        maps.save(segmented.image, lambda: segmenting.class_map(segmented, names))
        found.append(
            {
                "image": segmented.image,
                "size": list(segmented.classes.shape),
                "shares": segmenting.shares(segmented.classes, names),
            }
        )
        return segmenting.in_words(segmented, names)

    _print_all(
        images,
        (
            (s.image, s.picture is not None, s)
            for s in segmenting.segment_files(network, images, way)
        ),
        _line,
        finish=lambda: _write_json(options.json, found),
    )


def _print_all(
    images: Sequence[str],
    found: Iterable[tuple[str, bool, Any]],
    in_words: Callable[[Any], str],
    *,
    finish: Callable[[], None],
) -> None:
    """Print a line for each image.

    Args:
        images: Paths.
        found: Iterator of `(image, whether it could be read, what it shows)`.
        in_words: Function of what an image shows to its line.
        finish: Function that is called at the end, whatever could not be read.

    Raises:
        RunError: If images cannot be read.
    """
    unreadable = []
    width = max(map(len, images))
    for image, readable, shown in found:
        if not readable:
            unreadable.append(image)
            print(f"{named([image])} cannot be read", file=sys.stderr)
            continue
        print(f"{image:<{width}}  {in_words(shown)}", flush=True)
    finish()
    if unreadable:
        raise RunError(
            f"{len(unreadable)} of {len(images)} images cannot be read: replace or "
            f"leave them out. Received: {unreadable[0]!r}",
        )


def _write_json(path, content):
    """Write a file where one was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n")


class _Pictures:
    """Write PNGs into a folder, each named after its image.

    Args:
        folder: Folder, which is made where it is missing; `None` writes nothing.
        flag: Option that named it, for messages.

    Raises:
        InputError: If there is no folder and none can be made.
    """

    def __init__(self, folder: Path | None, flag: str):
        self.folder, self._taken = folder, set()
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{flag} takes a folder, which is made where it is missing; this "
                f"cannot be one ({error.strerror}). Received: {str(folder)!r}"
            ) from error

    def save(self, image: str, draw: Callable[[], Any]) -> None:
        """Write `draw()`, a `PIL.Image`, where pictures were asked for."""
        if self.folder is not None:
            draw().save(self.folder / self._name(image))

    def _name(self, image):
        """Return a file name; images of one name in several folders get numbers."""
        stem, number = Path(image).stem, 1
        name = stem
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return f"{name}.png"
