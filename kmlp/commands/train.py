"""Trains an architecture on images, merges it, exports it and reports.

    python training/train.py --arch convmlp_s
    python training/train.py --weights saved_models/convmlp_s --data flowers

The first trains on scikit-learn's handwritten digits in a few minutes on a laptop; with
--data the architecture's published recipe is used, on one device, several, or several
hosts. The second fine-tunes what a run has learned, on other images. A run that was
stopped, however, goes on with the same command. The result lies in
saved_models/ARCH/VERSION: a SavedModel with model.tflite, trained.keras, the best
weights, history.csv, recipe.json and report.json.

    python training/train.py --study repmlpnet/table4 --data cifar100 --minutes 10

This trains the rows of a paper's table one after the other and prints the paper's
figures beside ours; it is given again until all rows are there. A study needs
TensorFlow only where that is Keras' backend.
"""

import argparse

from kmlp.commands.training_arguments import (
    add_devices,
    add_run,
    add_study,
    check_study,
)
from kmlp.console import (
    RESOLUTIONS,
    Parser,
    add_reading,
    exit_code,
    image_size,
    import_quietly,
    positive,
    rate,
    seed,
    sizes,
)


def main(argv=None):
    """Runs the job; returns the process's exit code."""
    options = parse(argv)

    def job():
        if options.recipes:
            from kmlp.recipes.choosing import table

            print(table())
            return
        import_quietly(settle=False, needed=not options.study)
        if options.study:
            from kmlp.training.studies.study_run import run

            run(options)
            return
        from kmlp.training.job import run
        from kmlp.training.run import run_or_return
        from kmlp.training.tasks import classification

        run_or_return(lambda options: run(options, classification), options)

    interrupted = "interrupted; the same command goes on from what is kept."
    return exit_code("train.py", job, interrupted)


def parse(argv):
    """The command line."""
    parser = Parser(
        prog="train.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _what(parser.add_argument_group("what to train"))
    _how(parser.add_argument_group("how: the recipe, and what differs from it"))
    add_devices(parser.add_argument_group("on which devices"))
    add_run(parser.add_argument_group("the run"))
    add_study(parser.add_argument_group("a study, in place of --arch"))
    options = parser.parse_args(argv)
    if check_study(parser, options):
        return options
    if not options.recipes and options.arch is None and options.weights is None:
        parser.error("the following arguments are required: --arch or --weights")
    tagged = options.arch is not None and "." in options.arch
    for name in ("resolution", "freeze"):
        if getattr(options, name) is not None and not (options.weights or tagged):
            parser.error(f"--{name} goes with --weights")
    return options


def _what(group):
    add = group.add_argument
    add(
        "--arch",
        metavar="NAME[.TAG]",
        help="architecture by name, such as convmlp_s (default: that of --weights)",
    )
    add(
        "--weights",
        metavar="FILE|FOLDER|TAG",
        help="where training begins: a published .pth, .safetensors or .npz file, a "
        ".keras file, a run's folder, or a tag of --arch such as default; classes "
        "that are not theirs get a new head",
    )
    add(
        "--resolution",
        choices=RESOLUTIONS,
        help="what becomes of the weights' spatial kernels at another image size "
        "(default: interpolate)",
    )
    add(
        "--freeze",
        metavar="N|PART,PART|all",
        help="keep stem and first N stages (blocks of ResMLP) as they are; parts by "
        "name, such as stem,stage0; or all but the classifier",
    )
    add(
        "--data",
        metavar="FOLDER|tfds:NAME|digits",
        help="train/CLASS/* and val/CLASS/* or test/CLASS/*, JPEG or PNG; or a data "
        "set of TensorFlow Datasets (default: that of a fine-tuning recipe, or else "
        "scikit-learn's handwritten digits); a study takes such a folder or an .npz "
        "of uint8 arrays",
    )
    add_reading(group)
    add(
        "--num-classes",
        type=positive,
        metavar="N",
        help="stop where the data have another number of classes",
    )


def _how(group):
    add = group.add_argument
    add(
        "--recipe",
        metavar="NAME",
        help="default: the one that goes with --arch; with --weights the data's "
        "fine-tuning, or finetune, or small_images for networks that see such",
    )
    add("--recipes", action="store_true", help="list the recipes and end")
    add(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the recipe, such as mixup=0 drop_path=0.2",
    )
    add("--epochs", type=positive, metavar="N")
    add("--batch-size", type=positive, metavar="N", help="over all devices")
    add("--learning-rate", type=rate, metavar="X", help="the peak, not scaled further")
    add(
        "--image-size",
        type=image_size,
        metavar="PIXELS",
        help="height and width that the model sees",
    )
    add(
        "--local-kernels",
        type=sizes,
        metavar="K,K",
        help="kernel sizes of local branches, such as 1,3, or none, where a family "
        "has them",
    )
    add(
        "--teacher",
        metavar="FILE|NAME",
        help="distil from a .keras file, a SavedModel or a keras.applications name",
    )
    add(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of weights, order and augmentation (default: 0)",
    )
