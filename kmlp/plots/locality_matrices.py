"""FC kernels before and after Locality Injection, as images."""

from kmlp.errors import InputError
from kmlp.plots import style

LABEL = "log(|w| / min |w|)"
# Inches of a panel's width, at least and at most, of its height, of the colour bar.
_PANEL, _WIDEST, _LOW, _BAR = 2.7, 6.5, 1.5, 0.9
_LINE_HEIGHT = 2.2  # of an axis kernel's diagram
_WORDS = 0.75  # of a row's titles and labels
_TAIL = 1.0  # percent of the weights below the colours
# Cells of fewer points are hidden by what is drawn over them.
_SMALL_CELL, _CASING, _LINE = 7.0, 4.0, 1.8


@style.plot
def locality(pairs):
    """What output positions read, before and after Locality Injection.

    A row per pair: the FC kernel with the norm after it alone, and with the local
    branches merged into it. Darker is larger, on one scale for all, whose light end the
    smallest hundredth of the weights share: a logarithm has a long tail there. White is
    a weight of zero. A small square marks the output position, an outline the largest
    branch's kernel; on large maps the outline alone, around its cells. Kernels along
    one axis are drawn as lines over their positions.

    Args:
        pairs: `kmlp.analysis.injection.KernelPair`s.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no pairs.

    Reference: RepMLPNet (Ding et al., 2022), Appendix A, Fig. 3.
    """
    pairs = list(pairs)
    if not pairs:
        raise InputError("locality() draws at least one KernelPair. Received: none")
    sizes = [_size(pair) for pair in pairs]
    heights = [height + _WORDS for _, height in sizes]
    width = max(width for width, _ in sizes)
    figure = style.new_figure(2 * width + _BAR, sum(heights))
    rows = figure.subfigures(len(pairs), 1, squeeze=False, height_ratios=heights)
    logs = [log for pair in pairs for log in (pair.log_before, pair.log_after)]
    for row, pair in zip(rows[:, 0], pairs):
        row.suptitle(
            f"{pair.name}, share-set {pair.share_set}, output {pair.position}",
            fontsize="medium",
        )
        draw = _draw_lines if 1 in pair.before.shape else _draw_images
        draw(row, pair, logs)
    return figure


def _size(pair):
    """Inches of one of the two panels of a pair."""
    height, width = pair.before.shape
    if 1 in (height, width):
        return _PANEL, _LINE_HEIGHT
    across = min(max(_PANEL, _LOW * width / height), _WIDEST)
    return across, min(across * height / width, 3 * _PANEL)


def _scale(logs, tail):
    """The `tail` percentile and the largest of all logarithms."""
    import numpy as np

    values = np.concatenate([log.ravel() for log in logs])
    return np.nanpercentile(values, tail), np.nanmax(values)


def _draw_images(figure, pair, logs):
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(1, 2, sharey=True)
    low, high = _scale(logs, _TAIL)
    sides = (
        ("before", pair.log_before, pair.inside_before),
        ("after", pair.log_after, pair.inside_after),
    )
    for one, (when, values, inside) in zip(axes, sides):
        image = one.imshow(values, cmap=f"{style.SEQUENTIAL}_r", vmin=low, vmax=high)
        one.set_title(f"{when}: {_percent(inside)} of |w| in outline")
        one.set_xlabel("input column (patch)")
        for axis in (one.xaxis, one.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        _mark(one, pair)
    axes[0].set_ylabel("input row (patch)")
    # Within the right image's axes, so that it is exactly as high.
    bar = axes[1].inset_axes([1.04, 0, 0.05, 1])
    figure.colorbar(image, cax=bar, label=LABEL, extend="min")


def _mark(axes, pair):
    """The footprint outlined, the position in it as a smaller square."""
    from matplotlib.patches import Rectangle

    top, left, height, width = pair.footprint
    row, column = pair.position
    cell = 72 * _size(pair)[0] / pair.before.shape[1]
    corners = [((column - 0.25, row - 0.25), 0.5, 0.5)]
    aside = 0.0
    if cell < _SMALL_CELL:
        # The outline lies around the cells then (half its line and some room for what
        # words take from the panel), and their middle stays bare.
        corners, aside = [], 0.65 * _CASING / cell
    place = left - 0.5 - aside, top - 0.5 - aside
    corners.insert(0, (place, width + 2 * aside, height + 2 * aside))
    for place, right, down in corners:
        # White beneath the colour: seen on light and dark cells alike.
        for colour, thickness in (("white", _CASING), (style.OUTLINE, _LINE)):
            axes.add_patch(
                Rectangle(
                    place,
                    right,
                    down,
                    fill=False,
                    edgecolor=colour,
                    linewidth=thickness,
                    zorder=3,
                    clip_on=False,
                )
            )


def _draw_lines(figure, pair, logs):
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    axis = 0 if pair.before.shape[1] == 1 else 1
    word = ("row", "column")[axis]
    start, length = pair.footprint[axis], pair.footprint[axis + 2]
    axes.axvspan(
        start - 0.5,
        start + length - 0.5,
        color="0.88",
        linewidth=0,
        label=f"local branch ({length})",
    )
    sides = (
        ("before", pair.log_before, pair.inside_before),
        ("after", pair.log_after, pair.inside_after),
    )
    for number, (when, values, inside) in enumerate(sides):
        label = f"{when}: {_percent(inside)} of |w| in it"
        axes.plot(values.ravel(), label=label, **style.series(number))
    axes.axvline(
        pair.position[axis], color="0.4", linewidth=1, linestyle=":", label="output"
    )
    axes.set_xlabel(f"input {word} (patch)")
    axes.set_ylabel(LABEL)
    low, high = _scale(logs, 0)
    axes.set_ylim(low - 0.3, high + 0.3)
    axes.set_xlim(-0.5, pair.before.size - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _percent(share):
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
