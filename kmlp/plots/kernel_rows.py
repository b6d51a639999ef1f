"""Rows of the FC kernels of a network, as grids of images on one sheet."""

import math
import textwrap

from kmlp.errors import InputError
from kmlp.plots import style

# Inches of a panel: of as many image pixels, and at least, and at most.
_PIXELS, _SMALLEST, _LARGEST = 60, 1.5, 3.0
_COLUMNS = 6
# Colours end here, so that single large weights do not fade all others.
_PERCENTILE = 99.8


@style.plot
def rows(kernels, columns=None):
    """All layers of a network: what each output position reads from the map.

    A panel per layer, in it an image per output position, placed as the positions are.
    Of a layer that mixes along one axis the images are lines, and the panel is its
    matrix: lines below one another along the width, beside one another along the
    height. Zero is white; each panel has a scale of its own, which stands above it:
    the magnitude that 99.8 % of the panel's weights do not pass.

    Args:
        kernels: `kmlp.analysis.spatial.KernelRows`.
        columns: of panels; `None`: at most six.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no kernels.

    Reference: ResMLP (Touvron et al., 2021), Figs. 2 and B.1.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    kernels = list(kernels)
    if not kernels:
        raise InputError("rows() draws at least one KernelRows. Received: none")
    sheets = [mosaic(kernel.images) for kernel in kernels]
    count = len(kernels)
    down, across = style.grid_shape(count, columns or _columns(count))
    width = _inches(max(sheet.shape[1] for sheet in sheets))
    height = max(width * sheet.shape[0] / sheet.shape[1] for sheet in sheets)
    across_inches = max(across * (width + 0.15), 3.2) + 0.9
    words = textwrap.wrap(_words(kernels), int(13 * across_inches))
    down_inches = max(down * (height + 0.45), 1.8) + 0.2 * len(words) + 0.2
    figure = style.new_figure(across_inches, down_inches)
    panels = figure.subplots(down, across, squeeze=False)
    for panel in panels.flat[count:]:
        panel.set_visible(False)
    shades = ScalarMappable(Normalize(-1, 1), style.DIVERGING)
    for panel, kernel, sheet in zip(panels.flat, kernels, sheets):
        scale = _scale(kernel.images)
        panel.imshow(sheet / scale, cmap=shades.cmap, norm=shades.norm)
        panel.set_title(f"{kernel.label}\n±{scale:.2g}", fontsize=8)
        panel.set_facecolor("0.45")
        style.bare(panel)
    figure.suptitle("\n".join(words), fontsize="medium")
    figure.colorbar(
        shades,
        ax=panels,
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


def mosaic(images):
    """Images `(rows, columns, h, w)` as one, lines of NaN between them.

    Images of one line touch each other along it: they are a matrix.
    """
    import numpy as np

    rows, columns, height, width = images.shape
    gaps = int(height > 1), int(width > 1)
    down, right = height + gaps[0], width + gaps[1]
    sheet = np.full((rows, down, columns, right), np.nan)
    sheet[:, :height, :, :width] = images.transpose(0, 2, 1, 3)
    sheet = sheet.reshape(rows * down, columns * right)
    return sheet[: rows * down - gaps[0], : columns * right - gaps[1]]


def _scale(images):
    """The magnitude at which the colours end, above 0."""
    import numpy as np

    magnitudes = np.abs(images[np.isfinite(images)])
    return float(np.percentile(magnitudes, _PERCENTILE)) or 1.0


def _inches(pixels):
    return min(max(pixels / _PIXELS, _SMALLEST), _LARGEST)


def _columns(count):
    """Six, or what fills the rows evenly with fewer."""
    if count <= _COLUMNS:
        return count
    down = math.ceil(count / _COLUMNS)
    return math.ceil(count / down)
