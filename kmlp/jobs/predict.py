"""`kmlp predict`: what images show."""

import json
import sys
from pathlib import Path

from kmlp.console import (
    RESOLUTIONS,
    Stop,
    add_preparation,
    import_quietly,
    positive,
)
from kmlp.jobs.naming import check_json


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "predict",
        help="the likeliest classes of images",
        description="Prints the likeliest classes of images by any weights: published "
        "ones, a run's, a SavedModel or a TFLite file.",
    )
    add = command.add_argument
    add("images", nargs="+", metavar="IMAGE", help="files, folders or 'patterns/*.jpg'")
    add(
        "--weights",
        required=True,
        metavar="NAME|FILE|FOLDER",
        help="such as resmlp_s12.fb_in1k (`kmlp list --weights`), a published file, a "
        "run's or a preset's folder, a .keras, SavedModel or .tflite",
    )
    add("--arch", metavar="NAME", help="of published files that do not tell")
    add("--top", type=positive, default=5, metavar="K", help="classes (default: 5)")
    add("--batch-size", type=positive, default=32, metavar="N", help="default: 32")
    add("--json", type=Path, metavar="FILE", help="the result as JSON too")
    add(
        "--resolution",
        choices=RESOLUTIONS,
        default=RESOLUTIONS[0],
        help="what becomes of spatial kernels at another --image-size",
    )
    names = add_preparation(command)
    command.set_defaults(job=run, preparation=names)


def run(options):
    """Prints the classes; an image that cannot be read ends with code 1."""
    check_json(options.json)
    import_quietly()
    from kmlp.data.reading import named
    from kmlp.prediction import images_of, open_classifier, predict

    images = images_of(options.images)
    classifier = open_classifier(
        options.weights,
        arch=options.arch,
        given={name: getattr(options, name) for name in options.preparation},
        resolution=options.resolution,
    )
    found, unreadable = [], []
    width = max(map(len, images))
    for prediction in predict(
        classifier, images, top=options.top, batch_size=options.batch_size
    ):
        if prediction.classes is None:
            unreadable.append(prediction.image)
            print(f"{named([prediction.image])} cannot be read", file=sys.stderr)
            continue
        found.append(prediction)
        cells = (f"{name} {score:.1%}" for name, _, score in prediction.classes)
        print(f"{prediction.image:<{width}}  {', '.join(cells)}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(list(map(_plain, found)), indent=1) + "\n")
    if unreadable:
        raise Stop(
            f"{len(unreadable)} of {len(images)} images cannot be read: replace or "
            f"leave them out. Received: {unreadable[0]!r}",
            code=1,
        )


def _plain(prediction):
    classes = [
        {"name": name, "index": index, "score": score}
        for name, index, score in prediction.classes
    ]
    return {"image": prediction.image, "classes": classes}
