"""`kmlp plot costs`, `benchmark`, `run` and `study`: charts of figures."""

import json
from pathlib import Path

from kmlp.commands.benchmark import WORK
from kmlp.commands.listing import count
from kmlp.commands.plot.plotted import Kind
from kmlp.console import first_line
from kmlp.errors import InputError

_COSTS = ("parameters", "macs", "activations")
_REACHED = ("top1", "per_gmac", "per_mparam")
_SPEED_AGAINST = ("parameters", "macs", "top1", "memory")
_TIME = ("epoch", "step", "minutes")
_IMAGENET = "ImageNet-1k"


def _add_costs(parser):
    add = parser.add_argument
    add(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="such as 'convmlp_*', or 'convmlp/table2/*' of ablations; default: all "
        f"architectures with a top-1 on {_IMAGENET}, none where --run is given",
    )
    add(
        "--run",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="of finished runs, drawn too",
    )
    add("--x", choices=_COSTS, default=_COSTS[0], help=f"default: {_COSTS[0]}")
    add(
        "--y",
        choices=_REACHED,
        default=_REACHED[0],
        help="top-1, or divided by multiply-adds or parameters "
        f"(default: {_REACHED[0]})",
    )


def _costs(options):
    """Draw the papers' top-1 against parameters, multiply-adds or activations.

    They are counted here; there is a series for each family.
    """
    from kmlp import plots
    from kmlp.artifacts.run_curves import read_cost

    names = _networks(options)
    runs = [read_cost(folder, options.x == "activations") for folder in options.run]
    rows = count(names)
    yield plots.costs(rows, runs=runs, x=options.x, y=options.y)
    if without := [row.name for row in rows if row.top1 is None]:
        print(f"left out, as the papers print no top-1: {', '.join(without)}")


def _networks(options):
    """Return the networks that patterns name, each once."""
    from kmlp.models.papers import list_ablations, reported
    from kmlp.models.registry import list_models

    if not options.patterns:
        everything = [] if options.run else list_models()
        rows = {name: reported(name) for name in everything}
        return [name for name, row in rows.items() if row and row.data == _IMAGENET]
    found = {}
    for pattern in options.patterns:
        names = list_ablations(pattern) if "/" in pattern else list_models(pattern)
        if not names:
            raise InputError(
                "No architecture or ablation has such a name; `kmlp list` and `kmlp "
                f"list --ablations '*'` show all. Received: {pattern!r}"
            )
        found |= dict.fromkeys(names)
    return list(found)


def _add_benchmark(parser):
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="of kmlp benchmark --json")
    add(
        "--x",
        choices=_SPEED_AGAINST,
        help="what throughput is drawn against; top1 is the papers' "
        "(default: parameters)",
    )
    add("--work", choices=WORK, help="default: what was measured")


def _benchmark(options):
    """Draw what `kmlp benchmark … --json FILE` wrote.

    Of --backends: images per second against what the networks cost or reach, a series
    for each backend. Of --forms: images per second of each form.
    """
    from kmlp.benchmarking.findings import Findings, read

    results = [read(path) for path in options.files]
    kinds = {isinstance(result, Findings) for result in results}
    if len(kinds) > 1:
        raise InputError(
            "One plot is of backends or of forms: pass files of one kind. Received: "
            + ", ".join(map(repr, map(str, options.files)))
        )
    yield (_backends if kinds == {True} else _forms)(results, options)


def _backends(results, options):
    from kmlp.plots.network_charts import position, throughput

    x = options.x or "parameters"
    figure = throughput(results, x=x, work=options.work)
    speeds = [speed for found in results for speed in found.speeds]
    left = [s.network for s in speeds if position(s, x) is None]
    for name in dict.fromkeys(left):
        print(f"left out  {name}: without {x}")
    return figure


def _forms(results, options):
    from kmlp import plots

    for flag, value in (("--x", options.x), ("--work", options.work)):
        if value is not None:
            raise InputError(
                f"{flag} goes with files of `kmlp benchmark --backends`. "
                f"Received: {str(options.files[0])!r}, a benchmark of forms"
            )
    return plots.form_speeds([found for result in results for found in result])


def _add_run(parser):
    add = parser.add_argument
    add(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="of a run, of its versions, or of a study; or a history.csv",
    )
    add(
        "--columns",
        nargs="+",
        metavar="NAME",
        help="of history.csv, a panel each, such as val_top5 class_loss",
    )
    add("--x", choices=_TIME, default="epoch", help="default: epoch")


def _run(options):
    """Draw training curves of runs, finished or not, over one another.

    They are of the loss, what runs are judged by and the learning rate; a study's rows
    are runs too.
    """
    from kmlp import plots
    from kmlp.artifacts.run_curves import read_runs

    runs = read_runs(options.folders)
    figure = plots.curves(runs, columns=options.columns, x=options.x)
    width = max(len(run.label) for run in runs)
    for run in runs:
        print(f"{run.label:<{width}}  {_in_words(run)}")
    yield figure


def _add_study(parser):
    parser.add_argument(
        "table",
        type=Path,
        metavar="FOLDER|FILE",
        help="of a study's results, or its table.json",
    )


def _study(options):
    """Draw top-1 and gains of a study's rows, with intervals, beside the paper's."""
    from kmlp import plots

    path = options.table
    path = path / "table.json" if path.is_dir() else path
    try:
        table = json.loads(path.read_text("utf-8"))
        yield plots.study(table)
    except InputError:  # a ValueError, too, with words of its own
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "A study's folder holds table.json once a row is finished; this is none: "
            f"{first_line(error)}. Received: {str(options.table)!r}"
        ) from error


def _in_words(run):
    """Return how far a run is, and its best."""
    said = f"{int(run.epochs['epoch'][-1])} epochs"
    if run.score is not None:
        values = run.epochs[run.score]
        best = int(values.argmax())
        said += (
            f", {run.score.removeprefix('val_')} {values[-1]:.2%}, best "
            f"{values[best]:.2%} in epoch {int(run.epochs['epoch'][best])}"
        )
    return said


KINDS = {
    "costs": Kind(
        "accuracy against what it costs, of all architectures and own runs",
        _add_costs,
        _costs,
    ),
    "benchmark": Kind(
        "images per second of what was measured", _add_benchmark, _benchmark
    ),
    "run": Kind(
        "training curves of runs over one another", _add_run, _run, out="curves"
    ),
    "study": Kind(
        "what a study's rows gain, with intervals, beside the paper's figures",
        _add_study,
        _study,
    ),
}
