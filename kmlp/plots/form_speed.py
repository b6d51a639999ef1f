"""How fast the forms of networks are."""

from kmlp.benchmarking.measuring import PEAK, quartiles
from kmlp.errors import InputError
from kmlp.plots import style
from kmlp.plots.backend_speed import SPEED, WIDTH, logarithmic, panel_grid, short_name

_ROW = 0.26  # inches of a form


@style.plot
def form_speeds(results):
    """Images per second of the forms of networks.

    A panel for each network, a row for each form, a series for each batch; medians with
    bars from quartile to quartile.

    Args:
        results: `kmlp.benchmarking.Benchmark`s.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: nothing was timed.
    """
    results = [r for r in results if any(t.name != PEAK for t in r.timings)]
    if not results:
        raise InputError("No form was timed. Received: no timings")
    counts = [len(_forms(result)) for result in results]
    rows, columns = panel_grid(len(results))
    batches = sorted({t.batch for r in results for t in r.timings if t.name != PEAK})
    height = rows * (1.2 + _ROW * max(counts) * max(1, len(batches) / 2))
    figure = style.new_figure(WIDTH * columns, height + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, result in zip(grid, results):
        _draw_forms(axes, result, batches)
    for axes in grid[len(results) :]:
        axes.set_visible(False)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(batches))
    return figure


def _forms(result):
    return list(dict.fromkeys(t.name for t in result.timings if t.name != PEAK))


def _draw_forms(axes, result, batches):
    names, edges = _forms(result), []
    for number, batch in enumerate(batches):
        own = [t for t in result.timings if t.name != PEAK and t.batch == batch]
        if not own:
            continue
        ranges = [quartiles(t.rounds or (t.images_per_second,)) for t in own]
        edges += [edge for pair in ranges for edge in pair]
        shift = (number - (len(batches) - 1) / 2) * 0.6 / max(len(batches), 1)
        look = style.series(number)
        axes.errorbar(
            [t.images_per_second for t in own],
            [names.index(t.name) + shift for t in own],
            xerr=[
                [t.images_per_second - low for t, (low, _) in zip(own, ranges)],
                [high - t.images_per_second for t, (_, high) in zip(own, ranges)],
            ],
            color=look["color"],
            marker=look["marker"],
            linestyle="",
            capsize=2.5,
            elinewidth=1.0,
            label=f"batch {batch}",
        )
    logarithmic(axes, "x", edges)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    size = "x".join(map(str, result.input_shape[:2]))
    cores = f"{result.threads} thread{'s' * (result.threads > 1)}"
    axes.set_title(f"{short_name(result.name)} at {size}, {cores}")
    axes.set(xlabel=SPEED, ylabel="form")
    axes.grid(True, axis="x")
