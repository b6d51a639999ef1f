"""Trains an architecture on images, merges it, exports it and reports.

    python training/train.py --arch convmlp_s

trains on scikit-learn's handwritten digits in a few minutes on a laptop. The result
lies in saved_models/ARCH/VERSION: a SavedModel with model.tflite, trained.keras,
history.csv and report.json.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:
    # As a script: its own folder's modules are imported from the clone.
    sys.path[0] = str(ROOT)

from training.console import Stop, import_quietly  # noqa: E402

SMALLEST_IMAGE = 8


def main(argv=None):
    """Runs the job; returns the process's exit code."""
    options = parse(argv)
    try:
        import_quietly()
        run(options)
    except Stop as stop:
        print(f"train.py: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("\ntrain.py: interrupted; nothing unfinished is kept.", file=sys.stderr)
        return 130
    return 0


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--arch", required=True, help="architecture by name, such as convmlp_s")
    add(
        "--data",
        metavar="FOLDER",
        help="train/CLASS/* and val/CLASS/* or test/CLASS/*, JPEG or PNG "
        "(default: scikit-learn's handwritten digits)",
    )
    add("--epochs", type=positive, metavar="N", help="default: by the number of images")
    add("--batch-size", type=positive, metavar="N", help="default: the architecture's")
    add("--learning-rate", type=rate, metavar="X", help="peak of the cosine")
    add(
        "--image-size",
        type=image_size,
        metavar="PIXELS",
        help="height and width that the model sees (default: 32)",
    )
    add(
        "--local-kernels",
        type=sizes,
        metavar="K,K",
        help="kernel sizes of local branches, such as 1,3, where a family has them",
    )
    add(
        "--num-classes",
        type=positive,
        metavar="N",
        help="stop where the data have another number of classes",
    )
    add(
        "--on-corrupt",
        choices=("stop", "skip"),
        default="stop",
        help="what to do where images cannot be decoded (default: stop)",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: 0)",
    )
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        default=ROOT / "saved_models",
        help="folder of the results (default: saved_models in the clone)",
    )
    return parser.parse_args(argv)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help.\n")


def positive(text):
    """A positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


def seed(text):
    """What NumPy takes as a seed."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"must be in 0…2^32-1, not {text!r}")
    return int(text)


def image_size(text):
    """A number of pixels."""
    if positive(text) < SMALLEST_IMAGE:
        raise argparse.ArgumentTypeError(
            f"must be at least {SMALLEST_IMAGE}, not {text}"
        )
    return int(text)


def rate(text):
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value


def sizes(text):
    """Integers with commas between them."""
    return tuple(positive(part) for part in text.split(","))


def run(options):
    """The job: data, model, training, export, report.

    Raises:
        Stop: input that cannot be worked with, or artifacts that do not agree.
    """
    # Imported here, so that --help and mistyped flags are answered at once.
    import keras

    from kmlp.export.atomic import check_writable
    from training.fitting import fit
    from training.publishing import publish
    from training.report import table
    from training.settings import build, default_epochs, settings_of

    started = time.monotonic()
    settings = settings_of(options.arch)
    source = open_source(options.data)
    classes = len(source.class_names)
    if options.num_classes not in (None, classes):
        raise Stop(
            f"The data have {classes} classes: leave --num-classes out or correct it. "
            f"Received: --num-classes {options.num_classes}"
        )
    keras.utils.set_random_seed(options.seed)
    size = options.image_size or settings.image_size
    model = build(options.arch, classes, size, options.local_kernels)
    folder = options.output / options.arch
    try:
        check_writable(folder)
    except OSError as error:
        raise Stop(f"--output: {error}") from error
    data = source.load(size, options.on_corrupt)
    training = {
        "epochs": options.epochs or default_epochs(len(data.train)),
        "batch_size": options.batch_size or settings.batch_size,
        "learning_rate": options.learning_rate or settings.learning_rate,
        "seed": options.seed,
    }
    print(
        f"{options.arch}, {model.count_params():,} parameters, on {data.name}: "
        f"{len(data.train):,} images to train, {len(data.validation):,} to validate, "
        f"{classes} classes, {size}x{size}"
    )
    history = fit(model, data, settings, **training)
    print("Merging, exporting and comparing on the validation images")
    path, report = publish(
        model,
        data,
        folder,
        history=history,
        details={
            "architecture": options.arch,
            "arguments": model.get_config(),
            "data": data.summary(),
            "training": training,
        },
        batch_size=training["batch_size"],
    )
    print(table(report["forms"]))
    print(f"Published {path} after {time.monotonic() - started:.0f} s")


def open_source(folder):
    """The data set: a folder of images, or the embedded digits."""
    if folder is None:
        from training.digits import Digits

        return Digits()
    from training.folders import ImageFolder

    try:
        return ImageFolder(folder)
    except OSError as error:  # no permission, a lost disk
        raise Stop(f"--data: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
