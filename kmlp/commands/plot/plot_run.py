"""`kmlp plot run`: training curves."""

from pathlib import Path

from kmlp.commands.plot.output import add_output, check_output, write

X = ("epoch", "step", "minutes")


def add(kinds):
    """Adds the subparser."""
    command = kinds.add_parser(
        "run",
        help="training curves of runs over one another",
        description="Draws the loss, what runs are judged by and the learning rate of "
        "finished and unfinished runs, and of a study's rows, over one another.",
    )
    add = command.add_argument
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
    add("--x", choices=X, default="epoch", help="default: epoch")
    add_output(command, "curves")
    command.set_defaults(job=run)


def run(options):
    """Reads the runs and draws them."""
    from kmlp.artifacts.run_curves import read_runs
    from kmlp.plots.training_curves import curves

    check_output(options)
    runs = read_runs(options.folders)
    figure = curves(runs, columns=options.columns, x=options.x)
    width = max(len(run.label) for run in runs)
    for run in runs:
        print(f"{run.label:<{width}}  {_in_words(run)}")
    write(figure, options)


def _in_words(run):
    """How far a run is, and its best."""
    said = f"{int(run.epochs['epoch'][-1])} epochs"
    if run.score is not None:
        values = run.epochs[run.score]
        best = int(values.argmax())
        said += (
            f", {run.score.removeprefix('val_')} {values[-1]:.2%}, best "
            f"{values[best]:.2%} in epoch {int(run.epochs['epoch'][best])}"
        )
    return said
