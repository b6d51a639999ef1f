"""The command `kmlp`: list, info, benchmark, export, audit."""

import argparse
import json
import os
import sys

from kmlp.quiet import quiet
from kmlp.version import __version__


def main(argv=None):
    """Runs the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    # Must stand before TensorFlow is imported, which the jobs do.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        arguments.job(arguments)
    except BrokenPipeError:
        # The reader of a pipe has gone; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        print(f"kmlp: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kmlp: interrupted.", file=sys.stderr)
        return 130
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="kmlp", description="Vision MLPs in Keras: look up, measure, export."
    )
    parser.add_argument("--version", action="version", version=f"kmlp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("list", help="architectures by name")
    command.add_argument("pattern", nargs="?", default="*", help="such as 'convmlp_*'")
    command.add_argument(
        "--costs",
        action="store_true",
        help="parameters and multiply-adds beside the names, as Markdown",
    )
    command.set_defaults(job=_list)

    command = commands.add_parser("info", help="parameters and multiply-adds")
    _architecture(command)
    command.add_argument("--merged", action="store_true", help="the inference form")
    command.add_argument("--layers", action="store_true", help="a line per layer")
    command.set_defaults(job=_info)

    command = commands.add_parser(
        "benchmark", help="images per second of train form and merged form"
    )
    _architecture(command)
    command.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--json", metavar="FILE", help="the figures as JSON too")
    command.set_defaults(job=_benchmark)

    command = commands.add_parser("export", help="a .keras file for serving or edge")
    command.add_argument("model", metavar="MODEL.keras")
    command.add_argument("output", help="folder of versions, or a .tflite file")
    command.add_argument(
        "--quantize", choices=["float16", "dynamic"], help="of a .tflite file"
    )
    command.add_argument(
        "--train-form", action="store_true", help="export without merging"
    )
    command.set_defaults(job=_export)

    command = commands.add_parser("audit", help="operations of an artifact")
    command.add_argument("path", help="SavedModel folder or .tflite file")
    command.set_defaults(job=_audit)
    return parser


def _architecture(command):
    command.add_argument("name", help="see `kmlp list`")
    command.add_argument("--num-classes", type=int)
    command.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="one size, or height and width",
    )


def _model_arguments(arguments):
    shape = None
    if arguments.image_size is not None:
        if len(arguments.image_size) > 2:
            raise ValueError(
                "--image-size takes one size, or height and width. "
                f"Received: {arguments.image_size}"
            )
        shape = (arguments.image_size[0], arguments.image_size[-1], 3)
    return {"num_classes": arguments.num_classes, "input_shape": shape}


def _list(arguments):
    import keras

    import kmlp

    names = kmlp.list_models(arguments.pattern)
    if not names:
        raise ValueError(
            "No architecture has such a name; `kmlp list` shows all. "
            f"Received: {arguments.pattern!r}"
        )
    if not arguments.costs:
        print("\n".join(names))
        return
    print("| architecture | image size | parameters (M) | multiply-adds (G) |")
    print("|---|---|---|---|")
    for name in names:
        # Costs need shapes only; drawing weights would take most of the time.
        with keras.StatelessScope():
            model = kmlp.create_model(name)
        profile = kmlp.profile(model)
        size = "x".join(map(str, model.inputs[0].shape[1:3]))
        print(
            f"| `{name}` | {size} | {profile.trainable / 1e6:.2f} "
            f"| {profile.macs / 1e9:.2f} |",
            flush=True,
        )


def _info(arguments):
    import kmlp

    with quiet():  # the backend looks for devices
        model = kmlp.create_model(arguments.name, **_model_arguments(arguments))
    size = "x".join(map(str, model.inputs[0].shape[1:3]))
    if arguments.merged:
        model = kmlp.merge(model)
    profile = kmlp.profile(model)
    if arguments.layers:
        print(profile)
        return
    form = "merged" if arguments.merged else "train form"
    print(
        f"{arguments.name} at {size}, {form}: "
        f"{profile.trainable:,} trainable and {profile.non_trainable:,} "
        f"non-trainable parameters, {profile.macs / 1e9:.3f} GMACs"
    )


def _benchmark(arguments):
    from kmlp import benchmarking

    benchmarking.use_threads(arguments.threads)
    timings = benchmarking.benchmark(
        arguments.name,
        batches=arguments.batch,
        rounds=arguments.rounds,
        threads=arguments.threads,
        **_model_arguments(arguments),
    )
    print(benchmarking.table(timings))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([vars(timing) for timing in timings], file, indent=1)


def _export(arguments):
    import keras

    import kmlp

    with quiet():  # the backend looks for devices
        model = keras.models.load_model(arguments.model, compile=False)
    merge = not arguments.train_form
    if arguments.output.endswith(".tflite"):
        written = kmlp.export.tflite(
            model, arguments.output, merge=merge, quantize=arguments.quantize
        )
    elif arguments.quantize:
        raise ValueError(
            "--quantize goes with a .tflite file. "
            f"Received: output {arguments.output!r}"
        )
    else:
        written = kmlp.export.saved_model(model, arguments.output, merge=merge)
    print(written)


def _audit(arguments):
    import kmlp

    print(kmlp.export.audit(arguments.path))


if __name__ == "__main__":
    sys.exit(main())
