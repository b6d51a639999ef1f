"""`kmlp benchmark`: images per second, of forms of a network or on several backends."""

import json
import sys
from pathlib import Path

from kmlp.backend import BACKENDS
from kmlp.commands.arguments import (
    Parser,
    add_architecture,
    check_file,
    model_arguments,
    positive,
)
from kmlp.console import import_quietly
from kmlp.errors import InputError

# As `kmlp.benchmarking.benchmarked` has them; importing it takes seconds.
WORK = ("inference", "training")
PRECISIONS = ("float32", "bfloat16", "float16")
# Options of one kind of benchmark, with what they are where none is given.
OF_FORMS = {"clock": "wall"}
OF_BACKENDS = {
    "work": WORK,
    "xla": ("off", "on"),
    "precision": "float32",
    "device": None,
    "memory": True,
    "csv": None,
}
BATCHES = {"forms": (1, 8), "backends": (8,)}


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Times train form, merged form, SavedModel, TFLite files and the "
        "published PyTorch network in turns, in one process, with the share of the "
        "machine's matrix product that each reaches. With --backends, times inference "
        "and training steps on each of Keras' backends in turns, and their peak "
        "memory."
    )
    add = parser.add_argument
    add(
        "names",
        nargs="+",
        metavar="NAME|FILE",
        help="see `kmlp list`; or a .keras checkpoint or a run's folder",
    )
    add_architecture(parser)
    add(
        "--batch",
        type=positive,
        nargs="+",
        help="default: 1 8; with --backends 8",
    )
    add("--rounds", type=positive, default=10, help="default: 10")
    add("--threads", type=positive, default=2, help="of a CPU (default: 2)")
    add("--json", metavar="FILE", type=Path, help="the figures as JSON too")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--forms",
        nargs="+",
        metavar="FORM",
        help="of train, train-xla, merged, merged-xla, saved-model, float32, float16, "
        "dynamic, int8, torch, torch-merged; xla, tflite, pytorch and all name several "
        "(default: all)",
    )
    what.add_argument(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        help="time these backends instead of forms, each in a process of its own",
    )
    add(
        "--clock",
        choices=("wall", "cpu"),
        help="of --forms; cpu, with --threads 1: seconds of the CPU, to which other "
        "work on the machine does not add (default: wall)",
    )
    group = parser.add_argument_group("with --backends")
    add = group.add_argument
    add(
        "--work",
        nargs="+",
        choices=WORK,
        help="inference by the merged form, a step of AdamW by the train form "
        "(default: both)",
    )
    add(
        "--xla",
        nargs="+",
        choices=("on", "off"),
        help="TensorFlow with XLA, without, or both; JAX is always with it, PyTorch "
        "always without (default: off on)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        help="training keeps its weights in float32 (default: float32)",
    )
    add(
        "--device",
        choices=("cpu", "gpu"),
        help="default: a GPU where the machine has one",
    )
    add(
        "--no-memory",
        dest="memory",
        action="store_const",
        const=False,
        help="leave out peak memory, which takes a process for each figure",
    )
    add("--csv", metavar="FILE", type=Path, help="the table as CSV too")
    parser.set_defaults(job=_run)


def _run(options):
    check_file(options.json, "--json")
    _settle(options)
    if options.backends:
        _backends(options)
    else:
        _forms(options)


def _settle(options):
    """Fill in defaults; refuse options of the other kind of benchmark."""
    kind = "backends" if options.backends else "forms"
    own, others = OF_FORMS, OF_BACKENDS
    if options.backends:
        own, others = others, own
    for name in others:
        if getattr(options, name) is not None:
            flag = "--no-memory" if name == "memory" else f"--{name}"
            remedy = "--backends" if others is OF_BACKENDS else "--forms"
            raise InputError(f"{flag} goes with {remedy}. Received: {flag}")
    for name, value in own.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.batch = tuple(dict.fromkeys(options.batch or BATCHES[kind]))


def _backends(options):
    """Run the benchmark of backends, in which this process has no part."""
    from kmlp.benchmarking.backends import benchmark_backends
    from kmlp.benchmarking.findings import COLUMNS
    from kmlp.console import table

    check_file(options.csv, "--csv")
    found = benchmark_backends(
        _sources(options),
        tuple(dict.fromkeys(options.backends)),
        work=tuple(dict.fromkeys(options.work)),
        xla=tuple(word == "on" for word in dict.fromkeys(options.xla)),
        batches=options.batch,
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
        memory=options.memory,
        progress=_progress(),
    )
    print(found, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found.as_data(), indent=1) + "\n")
    if options.csv is not None:
        options.csv.write_text(table(COLUMNS, found.rows(), "csv") + "\n")


def _forms(options):
    """Run the benchmark of forms."""
    import_quietly(settle=False)
    from kmlp.benchmarking.form_benchmark import (
        as_data,
        benchmark,
        check_clock,
        report,
    )
    from kmlp.benchmarking.measuring import use_threads
    from kmlp.benchmarking.network_forms import chosen_forms

    forms = chosen_forms(options.forms or ["all"])
    check_clock(options.clock, options.threads)
    use_threads(options.threads)  # before any model is made
    sources = _sources(options)
    for source in sources:
        source.check()
    results = []
    for source in sources:
        found = benchmark(
            source.model(),
            name=source.name,
            forms=forms,
            batches=options.batch,
            rounds=options.rounds,
            threads=options.threads,
            clock=options.clock,
            input_shape=source.input_shape,
            progress=_progress(),
        )
        print("\n" * bool(results) + report(found), flush=True)
        results.append(as_data(found))
        if options.json is not None:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


def _sources(options):
    from kmlp.benchmarking.benchmarked import Source

    return [
        Source(name, settings=tuple(options.set), **model_arguments(options))
        for name in dict.fromkeys(options.names)
    ]


def _progress():
    """Return a writer of lines over one another on a terminal, `None` elsewhere."""
    if not sys.stderr.isatty():
        return None
    return lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
