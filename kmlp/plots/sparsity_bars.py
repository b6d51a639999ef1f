"""Share of small weights against depth."""

from kmlp.errors import InputError
from kmlp.plots import style

_WIDTH, _HEIGHT, _LEGEND = 3.4, 2.9, 1.9  # inches of a panel, and of the legend
_COLUMNS = 3


@style.plot
def sparsity(networks):
    """Share of weights below a threshold against depth, a line per kind of layer.

    Several layers of a kind in one block count as one, by their numbers of weights.
    What stands outside of blocks, embeddings and head, stands between their numbers.

    Args:
        networks: `{label: Sparsity}`, of `kmlp.analysis.sparsity`; a panel each.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no networks, or several thresholds.

    Reference: ResMLP (Touvron et al., 2021), Figs. 3 and B.2: there "linear" is the
    patch mixing, "MLP" are expansion and projection together.
    """
    thresholds = {measured.threshold for measured in networks.values()}
    if len(thresholds) != 1:
        raise InputError(
            "Sparsities are drawn together where they have one threshold. "
            f"Received: {sorted(thresholds)}"
        )
    (threshold,) = thresholds
    count = len(networks)
    down, across = style.grid_shape(count, 2 if count == 4 else _COLUMNS)
    figure = style.new_figure(across * _WIDTH + _LEGEND, down * _HEIGHT)
    panels = figure.subplots(down, across, squeeze=False, sharey=True)
    for panel in panels.flat[count:]:
        panel.set_visible(False)
    shares = {label: measured.by_depth() for label, measured in networks.items()}
    numbers = _numbers(shares.values())
    for number, (panel, (label, kinds)) in enumerate(zip(panels.flat, shares.items())):
        _draw(panel, label, kinds, numbers)
        if number % across == 0:
            panel.set_ylabel(f"weights below {100 * threshold:g} % of max |w| (%)")
    lines = [line for panel in panels.flat for line in panel.lines]
    highest = max(max(line.get_ydata()) for line in lines)
    panels[0, 0].set_ylim(0, min(1.1 * highest, 100) or 100)
    # Of a kind that is joined in one panel only, the joined one.
    lines.sort(key=lambda line: line.get_linestyle() != "None")
    handles = {line.get_label(): line for line in lines}
    figure.legend(
        handles=[handles[kind] for kind in numbers], loc="outside right upper"
    )
    return figure


def _numbers(networks):
    """Of each kind, the number of its colour, the same in all panels."""
    from kmlp.analysis.linear import KINDS

    found = {kind for kinds in networks for kind in kinds}
    order = sorted(found, key=lambda kind: (KINDS.index(kind.split(",")[0]), kind))
    return {kind: number for number, kind in enumerate(order)}


def _draw(panel, label, kinds, numbers):
    from matplotlib.ticker import MaxNLocator

    for kind, rows in kinds.items():
        within = [row for row in rows if row.depth % 1 == 0]
        # Between what is in no block lies nothing to be joined.
        outside = [row for row in rows if row not in within]
        for part, joined in ((within, {}), (outside, {"linestyle": ""})):
            if part:
                panel.plot(
                    [row.depth for row in part],
                    [100 * row.small for row in part],
                    label=kind if part is within or not within else None,
                    clip_on=False,
                    **{**style.series(numbers[kind]), **joined},
                )
    panel.set_title(label)
    panel.set_xlabel("depth (block)")
    panel.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
    panel.grid(axis="y")
