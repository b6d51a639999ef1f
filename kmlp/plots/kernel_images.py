"""Draw FC kernels over positions: their rows, and what Locality Injection does."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from kmlp.analysis.injection import KernelPair
from kmlp.analysis.spatial import KernelRows
from kmlp.errors import InputError
from kmlp.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches of a panel: of as many image pixels, and at least, and at most.
_PIXELS, _SMALLEST, _LARGEST = 60, 1.5, 3.0
_COLUMNS = 6
# Colours end here, so that single large weights do not fade all others.
_PERCENTILE = 99.8


@style.plot
def rows(kernels: Iterable[KernelRows], columns: int | None = None) -> Figure:
    """Draw what each output position of a network's layers reads from the map.

    A panel per layer, in it an image per output position, placed as the positions are.
    Of a layer that mixes along one axis the images are lines, and the panel is its
    matrix: lines below one another along the width, beside one another along the
    height. Zero is white; each panel has a scale of its own, which stands above it:
    the magnitude that 99.8 % of the panel's weights do not pass.

    Args:
        kernels: Rows of each layer's kernel.
        columns: Panels beside each other; `None` for at most six.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there are no kernels.

    Reference: ResMLP (Touvron et al., 2021), Figs. 2 and B.1.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    kernels = list(kernels)
    if not kernels:
        raise InputError("rows() draws at least one KernelRows. Received: none")
    sheets = [mosaic(kernel.images) for kernel in kernels]
    if columns is None:  # at most six, or what fills the rows evenly with fewer
        columns = math.ceil(len(kernels) / math.ceil(len(kernels) / _COLUMNS))
    down, across = style.grid_shape(len(kernels), columns)
    width = max(sheet.shape[1] for sheet in sheets) / _PIXELS
    width = min(max(width, _SMALLEST), _LARGEST)
    height = max(width * sheet.shape[0] / sheet.shape[1] for sheet in sheets)
    across_inches = max(across * (width + 0.15), 3.2) + 0.9
    words = textwrap.wrap(_words(kernels), int(13 * across_inches))
    down_inches = max(down * (height + 0.45), 1.8) + 0.2 * len(words) + 0.2
    size = across_inches / across, down_inches / down
    figure, panels = style.new_panels(len(kernels), columns, size)
    shades = ScalarMappable(Normalize(-1, 1), style.DIVERGING)
    for panel, kernel, sheet in zip(panels.flat, kernels, sheets):
        magnitudes = np.abs(kernel.images[np.isfinite(kernel.images)])
        scale = float(np.percentile(magnitudes, _PERCENTILE)) or 1.0
        panel.imshow(sheet / scale, cmap=shades.cmap, norm=shades.norm)
        panel.set_title(f"{kernel.label}\n±{scale:.2g}", fontsize=8)
        panel.set_facecolor("0.45")
        style.bare(panel)
    figure.suptitle("\n".join(words), fontsize="medium")
    figure.colorbar(
        shades,
        ax=figure.axes,
        label="weight / number above",
        ticks=(-1, 0, 1),
        extend="both",
        aspect=20,
        shrink=min(1.0, 4 / down_inches),
        # Shares of the sheet's width, whatever that is.
        fraction=0.5 / across_inches,
        pad=0.15 / across_inches,
    )
    return figure


def _words(kernels):
    what = list(dict.fromkeys(kernel.what for kernel in kernels))
    sets = {kernel.share_set for kernel in kernels} - {None}
    what += [f"share-set {number}" for number in sorted(sets)]
    return f"Rows of the FC kernels as images of the map: {'; '.join(what)}"


def mosaic(images: np.ndarray) -> np.ndarray:
    """Return images `(rows, columns, h, w)` as one, lines of NaN between them.

    Images of one line touch each other along it: they are a matrix.
    """
    rows, columns, height, width = images.shape
    gaps = int(height > 1), int(width > 1)
    down, right = height + gaps[0], width + gaps[1]
    sheet = np.full((rows, down, columns, right), np.nan)
    sheet[:, :height, :, :width] = images.transpose(0, 2, 1, 3)
    sheet = sheet.reshape(rows * down, columns * right)
    return sheet[: rows * down - gaps[0], : columns * right - gaps[1]]


LABEL = "log(|w| / min |w|)"
# Inches of a panel's width, at least and at most, of its height, of the colour bar.
_PANEL, _WIDEST, _LOW, _BAR = 2.7, 6.5, 1.5, 0.9
_LINE_HEIGHT = 2.2  # of an axis kernel's diagram
_WORDS = 0.75  # of a row's titles and labels
_TAIL = 1.0  # percent of the weights below the colours
# Cells of fewer points are hidden by what is drawn over them.
_SMALL_CELL, _CASING, _LINE = 7.0, 4.0, 1.8


@style.plot
def locality(pairs: Iterable[KernelPair]) -> Figure:
    """Draw what output positions read, before and after Locality Injection.

    A row per pair: the FC kernel with the norm after it alone, and with the local
    branches merged into it. Darker is larger, on one scale for all, whose light end the
    smallest hundredth of the weights share: a logarithm has a long tail there. White is
    a weight of zero. A small square marks the output position, an outline the largest
    branch's kernel; on large maps the outline alone, around its cells. Kernels along
    one axis are drawn as lines over their positions.

    Args:
        pairs: Kernels of output positions, before and after.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there are no pairs.

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
    logs = [log.ravel() for pair in pairs for log in (pair.log_before, pair.log_after)]
    values = np.concatenate(logs)
    for row, pair in zip(rows[:, 0], pairs):
        row.suptitle(
            f"{pair.name}, share-set {pair.share_set}, output {pair.position}",
            fontsize="medium",
        )
        draw = _draw_lines if 1 in pair.before.shape else _draw_images
        draw(row, pair, values)
    return figure


def _size(pair):
    """Return the size in inches of one of the two panels of a pair."""
    height, width = pair.before.shape
    if 1 in (height, width):
        return _PANEL, _LINE_HEIGHT
    across = min(max(_PANEL, _LOW * width / height), _WIDEST)
    return across, min(across * height / width, 3 * _PANEL)


def _sides(pair):
    """Yield `(words, logarithms)` of the kernel before and after."""
    for when in ("before", "after"):
        share = getattr(pair, f"inside_{when}")
        share = f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
        yield f"{when}: {share} of |w| in", getattr(pair, f"log_{when}")


def _draw_images(figure, pair, values):
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(1, 2, sharey=True)
    scale = {"vmin": np.nanpercentile(values, _TAIL), "vmax": np.nanmax(values)}
    for one, (words, logs) in zip(axes, _sides(pair)):
        image = one.imshow(logs, cmap=f"{style.SEQUENTIAL}_r", **scale)
        one.set(title=f"{words} outline", xlabel="input column (patch)")
        for axis in (one.xaxis, one.yaxis):
            axis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        _mark(one, pair)
    axes[0].set_ylabel("input row (patch)")
    # Within the right image's axes, so that it is exactly as high.
    bar = axes[1].inset_axes([1.04, 0, 0.05, 1])
    figure.colorbar(image, cax=bar, label=LABEL, extend="min")


def _mark(axes, pair):
    """Outline the footprint, and the position in it as a smaller square."""
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
    line = {"fill": False, "zorder": 3, "clip_on": False}
    for corner in corners:
        # White beneath the colour: seen on light and dark cells alike.
        for colour, thickness in (("white", _CASING), (style.OUTLINE, _LINE)):
            drawn = Rectangle(*corner, edgecolor=colour, linewidth=thickness, **line)
            axes.add_patch(drawn)


def _draw_lines(figure, pair, values):
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    axis = 0 if pair.before.shape[1] == 1 else 1
    word = ("row", "column")[axis]
    start, length = pair.footprint[axis] - 0.5, pair.footprint[axis + 2]
    band = {"color": "0.88", "linewidth": 0, "label": f"local branch ({length})"}
    axes.axvspan(start, start + length, **band)
    for number, (words, logs) in enumerate(_sides(pair)):
        axes.plot(logs.ravel(), label=f"{words} it", **style.series(number))
    axes.axvline(
        pair.position[axis], color="0.4", linewidth=1, linestyle=":", label="output"
    )
    axes.set(xlabel=f"input {word} (patch)", ylabel=LABEL)
    axes.set_ylim(np.nanmin(values) - 0.3, np.nanmax(values) + 0.3)
    axes.set_xlim(-0.5, pair.before.size - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
