"""`kmlp benchmark`: images per second, of forms of a network or on several backends."""

import sys
from pathlib import Path

from kmlp.benchmarking.benchmarked import BACKENDS, PRECISIONS, WORK, Source
from kmlp.commands.arguments import (
    Parser,
    add_architecture,
    check_file,
    model_arguments,
    positive,
    write_json,
)
from kmlp.console import import_quietly, table
from kmlp.errors import InputError

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


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.description = (
        "Times train form, merged form, SavedModel, TFLite files, ONNX Runtime and "
        "OpenVINO, and the published PyTorch network in each of its runtimes, in "
        "turns, in one process, with the share of the machine's matrix product that "
        "each reaches; a runtime that is not installed is named. With --backends, "
        "times inference and training steps on each of Keras' backends in turns, and "
        "their peak memory."
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
        "dynamic, int8, saved-model-bfloat16, onnx, openvino, openvino-bfloat16, "
        "openvino-int8; of the published network torch, torch-merged, torch-compile, "
        "torch-onnx, torch-openvino; xla, tflite, openvino, bfloat16, pytorch and all "
        "name several (default: all)",
    )
    what.add_argument(
        "--backends",
        nargs="+",
        choices=tuple(BACKENDS),
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
    """Fill in defaults, refuse options of the other kind, and run the benchmark."""
    own, others, remedy = OF_FORMS, OF_BACKENDS, "--backends"
    if options.backends:
        own, others, remedy = others, own, "--forms"
    for name in others:
        if getattr(options, name) is not None:
            flag = "--no-memory" if name == "memory" else f"--{name}"
            raise InputError(f"{flag} goes with {remedy}. Received: {flag}")
    for name, value in own.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    check_file(options.json, "--json")
    check_file(options.csv, "--csv")
    if options.backends:
        _backends(options)
    else:
        _forms(options)


def _backends(options):
    """Run the benchmark of backends, in which this process has no part."""
    from kmlp.benchmarking.backends import benchmark_backends
    from kmlp.benchmarking.findings import COLUMNS

    found = benchmark_backends(
        _sources(options),
        _once(options.backends),
        work=_once(options.work),
        xla=tuple(word == "on" for word in _once(options.xla)),
        batches=_once(options.batch or (8,)),
        precision=options.precision,
        device=options.device,
        threads=options.threads,
        rounds=options.rounds,
        memory=options.memory,
        progress=_progress(),
    )
    print(found, flush=True)
    write_json(options.json, found.as_data())
    if options.csv is not None:
        options.csv.write_text(table(COLUMNS, found.rows(), "csv") + "\n", "utf-8")


def _forms(options):
    """Run the benchmark of forms."""
    import_quietly(settle=False)
    from kmlp.benchmarking.form_benchmark import benchmark, check_clock, chosen_forms
    from kmlp.benchmarking.measuring import use_threads

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
            batches=_once(options.batch or (1, 8)),
            rounds=options.rounds,
            threads=options.threads,
            clock=options.clock,
            input_shape=source.input_shape,
            progress=_progress(),
        )
        print("\n" * bool(results) + str(found), flush=True)
        results.append(found.as_data())
        write_json(options.json, results)


def _once(values):
    return tuple(dict.fromkeys(values))


def _sources(options):
    return [
        Source(name, settings=tuple(options.set), **model_arguments(options))
        for name in _once(options.names)
    ]


def _progress():
    """Return a writer of lines over one another on a terminal, `None` elsewhere."""
    if not sys.stderr.isatty():
        return None
    return lambda line: print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
