"""`kmlp plot benchmark`: how fast networks are, from what was measured."""

from pathlib import Path

from kmlp.benchmarking.benchmarked import WORK
from kmlp.commands.plot.output import add_output, check_output, write
from kmlp.errors import InputError

X = ("parameters", "macs", "top1", "memory")


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "benchmark",
        help="images per second of what was measured",
        description="Draws what `kmlp benchmark … --json FILE` wrote. Of --backends: "
        "images per second against what the networks cost or reach, a series for each "
        "backend. Of --forms: images per second of each form.",
    )
    add = command.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="of kmlp benchmark --json")
    add(
        "--x",
        choices=X,
        help="what throughput is drawn against; top1 is the papers' "
        "(default: parameters)",
    )
    add("--work", choices=WORK, help="default: what was measured")
    add_output(command, "benchmark")
    command.set_defaults(job=run)


def run(options):
    """Draws it."""
    check_output(options)
    from kmlp.benchmarking.findings import Findings, read

    results = [read(path) for path in options.files]
    kinds = {isinstance(result, Findings) for result in results}
    if len(kinds) > 1:
        raise InputError(
            "One plot is of backends or of forms: pass files of one kind. Received: "
            + ", ".join(map(repr, map(str, options.files)))
        )
    draw = _backends if kinds == {True} else _forms
    write(draw(results, options), options)


def _backends(results, options):
    from kmlp.plots.backend_speed import position, throughput

    x = options.x or "parameters"
    figure = throughput(results, x=x, work=options.work)
    speeds = [speed for found in results for speed in found.speeds]
    left = [s.network for s in speeds if position(s, x) is None]
    for name in dict.fromkeys(left):
        print(f"left out  {name}: without {x}")
    return figure


def _forms(results, options):
    from kmlp.plots.backend_speed import form_speeds

    for flag, value in (("--x", options.x), ("--work", options.work)):
        if value is not None:
            raise InputError(
                f"{flag} goes with files of `kmlp benchmark --backends`. "
                f"Received: {str(options.files[0])!r}, a benchmark of forms"
            )
    return form_speeds([found for result in results for found in result])
