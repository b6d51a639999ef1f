"""Saliency maps over their pictures, networks and methods side by side."""

import dataclasses

import numpy as np

from kmlp.analysis.saliency import Saliency
from kmlp.errors import InputError
from kmlp.plots import style
from kmlp.plots.image_sheet import colour_bar, new_sheet, short

# Single pixels far above all others would leave nothing else to see.
PERCENTILE = 99
_SIDE, _TITLE, _LINE = 1.55, 0.4, 0.15  # inches
_SHARE = "how much a place counts,\nas a share of its map's largest"


@dataclasses.dataclass(frozen=True)
class Explained:
    """A column: what one network sees by one method.

    Attributes:
        title: such as the network's name and the method's, in two lines.
        pictures: `(N, H, W, 3)` in 0…1, as the network saw them.
        saliency: `kmlp.analysis.saliency.Saliency` of them.
        words: what stands below each, such as the class and its probability.
    """

    title: str
    pictures: np.ndarray
    saliency: Saliency
    words: tuple[str, ...]

    @property
    def signed(self):
        """Class-activation maps are drawn above zero, as in the paper."""
        return self.saliency.signed and self.saliency.layer is None


@style.plot
def saliency(columns, *, names=None, alone=False):
    """Draws a row for each picture: itself, then a map for each network and method.

    Each map has a scale of its own, from zero to the 99th percentile of its
    magnitudes, a class-activation map to its largest value. What counts lies brightly
    over the darkened picture; maps with signs lie in two colours over the faded one.

    Args:
        columns: `Explained`, of the same pictures in the same order.
        names: what stands above each picture, such as its class.
        alone: whether maps are drawn without the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no column, or columns of different numbers of pictures.

    Reference: ConvMLP (Li et al., 2021), Fig. 5.
    """
    columns = list(columns)
    counts = {len(part) for c in columns for part in (c.pictures, c.saliency.maps)}
    if len(counts) != 1:
        raise InputError(
            "saliency() draws at least one column, all of the same pictures. "
            f"Received: {len(columns)} columns, of {sorted(counts)} pictures"
        )
    (count,) = counts
    names = [""] * count if names is None else names
    lines = max(text.count("\n") + 1 for c in columns for text in (*c.words, ""))
    width = (1 + len(columns)) * _SIDE
    row = _SIDE + _LINE * lines + 0.04
    kinds = sorted({column.signed for column in columns})
    figure, panels, bars = new_sheet(
        count, 1 + len(columns), width, count * row + _TITLE, len(kinds)
    )
    for index, places in enumerate(panels):
        _show(places[0], columns[0].pictures[index])
        places[0].set_xlabel(short(names[index], _SIDE), fontsize=8)
        for axes, column in zip(places[1:], columns):
            own = scaled(column.saliency.maps[index], column.signed)
            picture = None if alone else column.pictures[index]
            _show(axes, overlaid(own, column.signed, picture))
            if not own.any():
                _say_nothing(axes, column.signed)
            words = column.words[index].split("\n")
            axes.set_xlabel("\n".join(short(w, _SIDE) for w in words), fontsize=8)
    panels[0, 0].set_title("picture", fontsize=8)
    for axes, column in zip(panels[0, 1:], columns):
        lines = column.title.split("\n")
        axes.set_title("\n".join(short(line, _SIDE) for line in lines), fontsize=8)
    for signed, axes in zip(kinds, bars):
        if signed:
            ticks = {-1: "against", 0: "0", 1: "for"}
            colour_bar(axes, style.DIVERGING, -1, 1, ticks, _SHARE)
        else:
            ticks = {0: "0", 0.5: "0.5", 1: "1"}
            colour_bar(axes, style.SEQUENTIAL, 0, 1, ticks, _SHARE)
    return figure


def _say_nothing(axes, signed):
    """An empty map is a finding, and must not look like a fault."""
    text = "zero everywhere" if signed else "nothing above zero"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axes.text(0.5, 0.5, text, fontsize=8, ha="center", va="center", bbox=box)


def scaled(values, signed):
    """A map on its own scale: 0…1, with signs -1…1.

    Args:
        values: `(h, w)`.
        signed: whether values below zero are shown; else they count as zero.
    """
    values = np.asarray(values, "float64")
    values = values if signed else np.maximum(values, 0)
    largest = np.percentile(np.abs(values), PERCENTILE) or np.abs(values).max()
    return np.clip(values / largest, -1, 1) if largest else values


def overlaid(values, signed, picture=None):
    """A scaled map in colours, over its picture where there is one.

    Args:
        values: `(h, w)`, from `scaled`; enlarged to the picture.
        signed: as of `scaled`.
        picture: `(H, W, 3)` in 0…1.

    Returns:
        `(H, W, 3)` in 0…1.
    """
    import matplotlib

    colours = matplotlib.colormaps[style.DIVERGING if signed else style.SEQUENTIAL]
    if picture is not None and values.shape != picture.shape[:2]:
        values = _enlarged(values, picture.shape[:2])
    drawn = colours((values + 1) / 2 if signed else values)[..., :3]
    if picture is None:
        return drawn
    grey = np.asarray(picture) @ (0.299, 0.587, 0.114)
    grey = 1 - 0.55 * (1 - grey) if signed else 0.55 * grey
    share = np.sqrt(np.abs(values))[..., None]
    return share * drawn + (1 - share) * grey[..., None]


def _enlarged(values, shape):
    from PIL import Image

    image = Image.fromarray(values.astype("float32"))
    larger = image.resize(shape[::-1], Image.Resampling.BILINEAR)
    return np.asarray(larger, "float64")


def _show(axes, image):
    axes.imshow(image, extent=(0, 1, 0, 1), aspect=image.shape[0] / image.shape[1])
    style.bare(axes)
