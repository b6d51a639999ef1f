"""`kmlp benchmark`: images per second of a network in every form."""

import json
import os
import sys
from pathlib import Path

from kmlp.console import Stop, import_quietly, positive
from kmlp.jobs.naming import (
    add_architecture,
    add_settings,
    check_json,
    model_arguments,
)
from kmlp.quiet import quiet


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "benchmark",
        help="images per second of every form of a network",
        description="Times train form, merged form, SavedModel, TFLite files and the "
        "published PyTorch network in turns, in one process, with the share of the "
        "machine's matrix product that each reaches.",
    )
    add = command.add_argument
    add(
        "names",
        nargs="+",
        metavar="NAME|FILE",
        help="see `kmlp list`; or a .keras checkpoint or a run's folder",
    )
    add_architecture(command)
    add_settings(command)
    add("--batch", type=positive, nargs="+", default=[1, 8], help="default: 1 8")
    add("--rounds", type=positive, default=10, help="default: 10")
    add("--threads", type=positive, default=2, help="default: 2")
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu, with --threads 1: seconds of the CPU, to which other work on the "
        "machine does not add (default: wall)",
    )
    add(
        "--forms",
        nargs="+",
        default=["all"],
        metavar="FORM",
        help="of train, train-xla, merged, merged-xla, saved-model, float32, float16, "
        "dynamic, int8, torch, torch-merged; xla, tflite, pytorch and all name several "
        "(default: all)",
    )
    add("--json", metavar="FILE", type=Path, help="the figures as JSON too")
    command.set_defaults(job=run)


def run(options):
    """Measures and prints."""
    check_json(options.json)
    import_quietly(settle=False)
    from kmlp import benchmarking
    from kmlp.benchmarking.report import as_data

    forms = benchmarking.chosen_forms(options.forms)
    benchmarking.check_clock(options.clock, options.threads)
    benchmarking.use_threads(options.threads)  # before any model is made
    sources = [_source(name, options) for name in options.names]
    results = []
    for name, source in zip(options.names, sources):
        found = benchmarking.benchmark(
            source(),
            name=name,
            forms=forms,
            batches=tuple(dict.fromkeys(options.batch)),
            rounds=options.rounds,
            threads=options.threads,
            clock=options.clock,
            input_shape=model_arguments(options)["input_shape"],
            progress=_progress(),
        )
        print("\n" * bool(results) + benchmarking.report(found), flush=True)
        results.append(as_data(found))
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


def _source(name, options):
    """A function that makes a name's model; what is wrong with the name shows now.

    Raises:
        Stop, ValueError: neither an architecture nor a checkpoint.
    """
    import kmlp
    from kmlp.analysis.shapes import shapes_only
    from kmlp.artifacts.forms import locate_checkpoint
    from kmlp.models.registry import check_options, variant
    from kmlp.pretrained.loading import load_checkpoint

    if not (os.sep in name or name.endswith(".keras") or os.path.exists(name)):
        given = dict(options.set)
        check_options(variant(name)[0], given)
        further = {**given, **model_arguments(options)}
        # Shapes only, no weights are drawn.
        with quiet(), shapes_only():
            kmlp.create_model(name, **further)
        return lambda: kmlp.create_model(name, **further)
    if options.num_classes or options.set:
        flag = "--num-classes" if options.num_classes else "--set"
        raise Stop(f"{flag} goes with the name of an architecture. Received: {name!r}")
    path = locate_checkpoint(name)

    return lambda: _fitting(load_checkpoint(path), options, name)


def _fitting(model, options, name):
    """The model of a checkpoint, if it takes images of the size asked for."""
    own = tuple(model.inputs[0].shape[1:])
    asked = model_arguments(options)["input_shape"]
    if asked is None and None in own:
        raise Stop(
            f"This network takes images of any size: pass --image-size. "
            f"Received: {name!r}"
        )
    if asked is not None and any(o not in (None, a) for o, a in zip(own, asked)):
        raise Stop(
            f"This network takes images of {own[0]}x{own[1]}: leave --image-size out. "
            f"Received: {name!r}, {asked[0]}x{asked[1]}"
        )
    return model


def _progress():
    """Writes a line over the last one on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        return None
    return lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
