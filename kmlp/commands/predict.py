"""`kmlp predict`: what images show."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kmlp.commands.arguments import (
    CLASSIFIER,
    DETECTOR,
    RESOLUTIONS,
    SEGMENTER,
    Parser,
    add_exif,
    add_preparation,
    add_resolution,
    add_views,
    check_file,
    check_options,
    positive,
    rate,
    write_json,
)
from kmlp.console import import_quietly
from kmlp.errors import InputError, RunError

# Which weights an option goes with, where not with all.
GOES_WITH = {
    "arch": (CLASSIFIER,),
    "top": (CLASSIFIER,),
    "resolution": (CLASSIFIER,),
    "batch_size": (CLASSIFIER, DETECTOR),
    "overlays": (DETECTOR, SEGMENTER),
    "score": (DETECTOR,),
    "maps": (SEGMENTER,),
    "mode": (SEGMENTER,),
    "scales": (SEGMENTER,),
    "flip": (SEGMENTER,),
}
# Objects of lower scores are mostly none; files of results have them all.
SCORE = 0.3


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Prints the likeliest classes of images by any weights: published "
        "ones, a run's, or any artifact; by those of a detector or "
        "segmenter the objects, or the share of each class."
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'")
    add(
        "--weights",
        metavar="NAME|FILE|FOLDER",
        help="such as resmlp_s12.fb_in1k (`kmlp list --weights`), a published file, a "
        "run's or a preset's folder, a .keras, SavedModel, .tflite, .onnx or OpenVINO "
        "model (default: the small network of CIFAR-10's ten classes that comes with "
        "kmlp)",
    )
    add("--json", type=Path, metavar="FILE", help="the result as JSON too")
    add("--batch-size", type=positive, metavar="N", help="default: 32, of detectors 8")
    add_exif(parser, default=None)
    group = parser.add_argument_group("classifiers")
    add = group.add_argument
    add("--arch", metavar="NAME", help="of published files that do not tell")
    add("--top", type=positive, metavar="K", help="classes (default: 5)")
    add_resolution(group)
    group = parser.add_argument_group("detectors and segmenters")
    add = group.add_argument
    add("--overlays", type=Path, metavar="FOLDER", help="pictures with what was found")
    add(
        "--score",
        type=rate,
        metavar="X",
        help="of detectors: print and draw objects from this score on (default: 0.3)",
    )
    add("--maps", type=Path, metavar="FOLDER", help="of segmenters: PNGs of classes")
    add_views(group)
    parser.set_defaults(job=_run, preparation=add_preparation(parser))


def _run(options):
    """Print a line for each image, and write the files beside the lines.

    Raises:
        RunError: If images cannot be read; the others are printed all the same.
    """
    check_file(options.json, "--json")
    if options.weights is None:
        options.weights = _packaged(options.arch)
    import_quietly()
    from kmlp.data.image_files import images_of
    from kmlp.data.reading import named
    from kmlp.predicting.dense_network import DETECTION, SEGMENTATION, task_of

    kind, shown = {
        None: (CLASSIFIER, _classes),
        DETECTION: (DETECTOR, _objects),
        SEGMENTATION: (SEGMENTER, _maps),
    }[task_of(options.weights)]
    check_options(options, GOES_WITH, kind)
    listing = images_of(options.images)
    images = listing.paths
    listing.say(file=sys.stderr)
    unreadable, entries = [], []
    width = max(map(len, images))
    for image, found in zip(images, shown(options, images)):
        if found is None:
            unreadable.append(image)
            print(f"{named([image])} cannot be read", file=sys.stderr)
            continue
        words, own = found
        entries += own
        print(f"{image:<{width}}  {words}", flush=True)
    write_json(options.json, entries)
    if unreadable:
        raise RunError(
            f"{len(unreadable)} of {len(images)} images cannot be read: replace or "
            f"leave them out. Received: {unreadable[0]!r}",
        )


def _packaged(arch):
    """Return the name of the weights that come with kmlp, and say that it is they."""
    from kmlp.weights.catalogue import PACKAGED, WEIGHTS, class_names

    entry = WEIGHTS[PACKAGED]
    if arch is not None:
        raise InputError(
            "--arch says what --weights are of, and there are none: pass both, or "
            f"neither. Received: --arch {arch}"
        )
    print(
        f"No --weights: {PACKAGED}, which comes with kmlp and knows "
        f"{', '.join(class_names(entry.labels) or ())} ({entry.top1:g} % "
        f"{entry.metric}). `kmlp list --weights` has those of ImageNet's classes.",
        file=sys.stderr,
        flush=True,
    )
    return PACKAGED


# Each yields for every image its line and its entries for JSON, or `None` where the
# image cannot be read.


def _classes(options, images):
    from kmlp.predicting.classifying import open_classifier, predict

    classifier = open_classifier(
        options.weights,
        arch=options.arch,
        given={name: getattr(options, name) for name in (*options.preparation, "exif")},
        resolution=options.resolution or RESOLUTIONS[0],
    )
    top, batch_size = options.top or 5, options.batch_size or 32
    for found in predict(classifier, images, top=top, batch_size=batch_size):
        if found.classes is None:
            yield None
            continue
        words = (f"{name} {score:.1%}" for name, _, score in found.classes)
        classes = [dict(zip(("name", "index", "score"), c)) for c in found.classes]
        yield ", ".join(words), [{"image": found.image, "classes": classes}]


def _objects(options, images):
    from kmlp.predicting.dense_network import open_dense_network
    from kmlp.predicting.dense_predictions import detect

    overlays = _Pictures(options.overlays, "--overlays")
    network = open_dense_network(options.weights, exif=options.exif)
    names, score = network.class_names, options.score or SCORE
    numbers = network.preprocessing.category_ids or range(1, len(names) + 1)
    category = dict(zip(numbers, names))
    all_found = detect(network, images, batch_size=options.batch_size or 8)
    for image_id, found in enumerate(all_found, 1):
        if found.picture is None:
            yield None
            continue
        overlays.save(found.image, found.overlay, names, score)
        # Masks take time, which is spent on a file alone.
        entries = [] if options.json is None else found.entries(image_id, numbers)
        yield (
            found.in_words(names, score),
            [
                {"file_name": found.image, **e, "category": category[e["category_id"]]}
                for e in entries
            ],
        )


def _maps(options, images):
    from kmlp.predicting.dense_network import open_dense_network
    from kmlp.predicting.dense_predictions import segment_files, way_of

    overlays = _Pictures(options.overlays, "--overlays")
    maps = _Pictures(options.maps, "--maps")
    network = open_dense_network(options.weights, any_size=True, exif=options.exif)
    names = network.class_names
    way = way_of(network, mode=options.mode, scales=options.scales, flip=options.flip)
    for found in segment_files(network, images, way):
        if found.picture is None:
            yield None
            continue
        overlays.save(found.image, found.overlay, names)
        maps.save(found.image, found.class_map, names)
        shares, size = found.shares(names), list(found.classes.shape)
        entry = {"image": found.image, "size": size, "shares": shares}
        yield found.in_words(names), [entry]


class _Pictures:
    """Write PNGs into a folder, each named after its image.

    Args:
        folder: Folder, which is made where it is missing; `None` writes nothing.
        flag: Option that named it, for messages.

    Raises:
        InputError: If there is no folder and none can be made.
    """

    def __init__(self, folder: Path | None, flag: str):
        self.folder = folder
        self._taken: set[str] = set()
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{flag} takes a folder, which is made where it is missing; this "
                f"cannot be one ({error.strerror}). Received: {str(folder)!r}"
            ) from error

    def save(self, image: str, draw: Callable[..., Any], *arguments: Any) -> None:
        """Write what `draw` returns, a `PIL.Image`, where pictures were asked for.

        Images of one name in several folders get numbers.
        """
        if self.folder is None:
            return
        stem, number = Path(image).stem, 1
        name = stem
        # Some systems take names that differ in case for one.
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name.casefold())
        draw(*arguments).save(self.folder / f"{name}.png")
