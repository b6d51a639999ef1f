"""Draw images beside what networks make of them: saliency and feature maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kmlp.analysis.saliency import Saliency
from kmlp.errors import InputError
from kmlp.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches: of the bars' strip, of a bar, of the room for what stands at a bar's ends.
_BARS, _LONGEST, _THICK, _ENDS = 0.8, 3.4, 0.1, 0.6
_TOP = 0.17  # of a bar's lower edge, from the strip's upper one


def _new_sheet(rows, columns, width, height, bars=1):
    """Create a figure with a grid of panels and places for colour bars below it.

    Args:
        rows, columns: Of the panels.
        width, height: Of the grid in inches; bars are added to it.
        bars: Number of colour bars.

    Returns:
        The figure, `(rows, columns)` axes, and the list of the bars' axes.
    """
    width = max(width, 2.1 * bars)
    figure = style.new_figure(width, height + _BARS)
    above, below = figure.subfigures(2, 1, height_ratios=[height, _BARS])
    panels = above.subplots(rows, columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    share = 1 / bars
    length = min(_LONGEST / width, share - _ENDS / width)
    left = [(index + 0.5) * share - length / 2 for index in range(bars)]
    places = [(x, 1 - _TOP / _BARS, length, _THICK / _BARS) for x in left]
    return figure, panels, [below.add_axes(place) for place in places]


def _colour_bar(axes, colours, ticks, label):
    """Fill a bar's place.

    Args:
        axes: From `_new_sheet`.
        colours: Name of the scale.
        ticks: Ticks `{value: text}` from end to end, narrow words.
        label: What the colours are, in lines of up to 30 letters.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(min(ticks), max(ticks)), colours),
        cax=axes,
        orientation="horizontal",
    )
    bar.outline.set_visible(False)
    bar.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=8)
    bar.set_label(label, fontsize=8)


def _short(text, width):
    """Break 8-point text into lines within a width in inches, cut in their middle."""
    room = int(width / 0.074)
    half = (room - 1) // 2
    return "\n".join(
        line if len(line) <= room else f"{line[: room - 1 - half]}…{line[-half:]}"
        for line in text.split("\n")
    )


def _same_pictures(plot, part, shown, counts):
    """Return the number of pictures that every `part` shows."""
    counts = set(counts)
    if len(counts) != 1:
        raise InputError(
            f"{plot}() draws at least one {part}, all of the same pictures. "
            f"Received: {len(shown)} {part}s, of {sorted(counts)} pictures"
        )
    return counts.pop()


_CELL, _HEAD = 1.25, 0.38  # inches of a feature map and of the words above it


@dataclasses.dataclass(frozen=True)
class Shown:
    """Some pictures and one network's feature maps of them.

    Attributes:
        title: Name of the network.
        pictures: Pictures `(N, H, W, 3)` in 0…1, as the network saw them.
        maps: Maps as `{stage: (N, h, w, C)}`, from `kmlp.analysis.features.stage_maps`.
        channels: Channels as `{stage: numbers of the channels}` to draw, such as those
            from `kmlp.analysis.features.varied_channels`.
    """

    title: str
    pictures: np.ndarray
    maps: Mapping[str, np.ndarray]
    channels: Mapping[str, Sequence[int]]


@style.plot
def features(
    networks: Iterable[Shown], *, names: Sequence[str] | None = None
) -> Figure:
    """Draw rows of maps: for each picture a row per network, by stage and channel.

    Each map is drawn from its own smallest value to its own largest, at its own
    resolution.

    Args:
        networks: What networks make of the same pictures, in the same order.
        names: Names of the pictures.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there is no network, or networks of different numbers of
            pictures.

    Reference: ConvMLP (Li et al., 2021), Fig. 4.
    """
    networks = list(networks)
    counts = (len(network.pictures) for network in networks)
    count = _same_pictures("features", "network", networks, counts)
    width = 1 + max(sum(map(len, network.channels.values())) for network in networks)
    rows = count * len(networks)
    figure, panels, (bar,) = _new_sheet(
        rows, width, width * _CELL, rows * (_CELL + _HEAD)
    )
    for row, places in enumerate(panels):
        index, network = row // len(networks), networks[row % len(networks)]
        _row(places, network, index)
        places[0].set_ylabel(_short(network.title, _CELL), fontsize=8)
        if names is not None and row % len(networks) == 0:
            places[0].set_xlabel(_short(names[index], _CELL), fontsize=8)
    ticks = {0: "smallest", 1: "largest"}
    _colour_bar(bar, style.SEQUENTIAL, ticks, "value within each map")
    return figure


def _row(places, network, index):
    for axes in places:
        style.bare(axes)
    places[0].imshow(network.pictures[index])
    cells = [(stage, c) for stage, own in network.channels.items() for c in own]
    for axes, (stage, channel) in zip(places[1:], cells):
        values = network.maps[stage][index, ..., channel]
        axes.imshow(values, cmap=style.SEQUENTIAL)
        first = channel == network.channels[stage][0]
        height, width = values.shape
        title = f"{stage}, {height}×{width}" if first else ""
        axes.set_title(title, fontsize=8, loc="left", pad=2)
        axes.set_xlabel(f"channel {channel}", fontsize=7, labelpad=1)
    for axes in places[1 + len(cells) :]:
        axes.set_axis_off()


# Single pixels far above all others would leave nothing else to see.
_PERCENTILE = 99
_SIDE, _TITLE, _LINE = 1.55, 0.4, 0.15  # inches of a saliency map and its words
# By whether a map has signs: its colours, and the labels of their bar.
_SCALES = {
    False: (style.SEQUENTIAL, {0: "0", 0.5: "0.5", 1: "1"}),
    True: (style.DIVERGING, {-1: "against", 0: "0", 1: "for"}),
}
_SHARE = "how much a place counts,\nas a share of its map's largest"


@dataclasses.dataclass(frozen=True)
class Explained:
    """A column: what one network sees by one method.

    Attributes:
        title: Title, such as the network's name and the method's, in two lines.
        pictures: Pictures `(N, H, W, 3)` in 0…1, as the network saw them.
        saliency: Saliency of the pictures.
        words: What stands below each, such as the class and its probability.
    """

    title: str
    pictures: np.ndarray
    saliency: Saliency
    words: tuple[str, ...]

    @property
    def signed(self) -> bool:
        """Return whether signs are drawn; class-activation maps lie above zero."""
        return self.saliency.signed and self.saliency.layer is None


@style.plot
def saliency(
    columns: Iterable[Explained],
    *,
    names: Sequence[str] | None = None,
    alone: bool = False,
) -> Figure:
    """Draw a row for each picture: itself, then a map for each network and method.

    Each map has a scale of its own, from zero to the 99th percentile of its
    magnitudes, a class-activation map to its largest value. What counts lies brightly
    over the darkened picture; maps with signs lie in two colours over the faded one.

    Args:
        columns: Explanations of the same pictures, in the same order.
        names: What stands below each picture, such as its class.
        alone: Whether maps are drawn without the picture.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: If there is no column, or columns of different numbers of pictures.

    Reference: ConvMLP (Li et al., 2021), Fig. 5.
    """
    columns = list(columns)
    parts = [part for c in columns for part in (c.pictures, c.saliency.maps)]
    count = _same_pictures("saliency", "column", columns, map(len, parts))
    names = [""] * count if names is None else names
    lines = max(text.count("\n") + 1 for c in columns for text in (*c.words, ""))
    width = (1 + len(columns)) * _SIDE
    row = _SIDE + _LINE * lines + 0.04
    kinds = sorted({column.signed for column in columns})
    figure, panels, bars = _new_sheet(
        count, 1 + len(columns), width, count * row + _TITLE, len(kinds)
    )
    for index, places in enumerate(panels):
        _show(places[0], columns[0].pictures[index], names[index])
        for axes, column in zip(places[1:], columns):
            own = scaled(column.saliency.maps[index], column.signed)
            picture = None if alone else column.pictures[index]
            _show(axes, overlaid(own, column.signed, picture), column.words[index])
            if not own.any():
                _say_nothing(axes, column.signed)
    for axes, title in zip(panels[0], ["picture", *(c.title for c in columns)]):
        axes.set_title(_short(title, _SIDE), fontsize=8)
    for signed, axes in zip(kinds, bars):
        _colour_bar(axes, *_SCALES[signed], _SHARE)
    return figure


def _say_nothing(axes, signed):
    """Mark an empty map, which is a finding and must not look like a fault."""
    text = "zero everywhere" if signed else "nothing above zero"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axes.text(0.5, 0.5, text, fontsize=8, ha="center", va="center", bbox=box)


def scaled(values: np.ndarray, signed: bool) -> np.ndarray:
    """Return a map on its own scale: 0…1, with signs -1…1.

    Args:
        values: Values `(h, w)`.
        signed: Whether values below zero are shown; else they count as zero.
    """
    values = np.asarray(values, "float64")
    values = values if signed else np.maximum(values, 0)
    largest = np.percentile(np.abs(values), _PERCENTILE) or np.abs(values).max()
    return np.clip(values / largest, -1, 1) if largest else values


def overlaid(
    values: np.ndarray, signed: bool, picture: np.ndarray | None = None
) -> np.ndarray:
    """Return a scaled map in colours, over its picture where there is one.

    Args:
        values: Values `(h, w)`, from `scaled`; enlarged to the picture.
        signed: Whether values below zero are shown.
        picture: Picture `(H, W, 3)` in 0…1.

    Returns:
        Picture `(H, W, 3)` in 0…1.
    """
    import matplotlib

    if picture is not None and values.shape != picture.shape[:2]:
        values = _enlarged(values, picture.shape[:2])
    colours: Any = matplotlib.colormaps[_SCALES[signed][0]]
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


def _show(axes, image, words):
    axes.imshow(image, extent=(0, 1, 0, 1), aspect=image.shape[0] / image.shape[1])
    axes.set_xlabel(_short(words, _SIDE), fontsize=8)
    style.bare(axes)
