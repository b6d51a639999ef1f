"""Feature maps of each stage, networks and pictures below each other."""

import dataclasses

import numpy as np

from kmlp.errors import InputError
from kmlp.plots import style
from kmlp.plots.image_sheet import colour_bar, new_sheet, short

_SIDE, _HEAD = 1.25, 0.38  # inches


@dataclasses.dataclass(frozen=True)
class Shown:
    """What one network makes of some pictures.

    Attributes:
        title: the network's name.
        pictures: `(N, H, W, 3)` in 0…1, as the network saw them.
        maps: `{stage: (N, h, w, C)}`, from `kmlp.analysis.features.stage_maps`.
        channels: `{stage: numbers of the channels}` to draw, such as those from
            `kmlp.analysis.features.varied_channels`.
    """

    title: str
    pictures: np.ndarray
    maps: dict
    channels: dict


@style.plot
def features(networks, *, names=None):
    """Draws rows of maps: for each picture a row per network, by stage and channel.

    Each map is drawn from its own smallest value to its own largest, at its own
    resolution.

    Args:
        networks: `Shown`, of the same pictures in the same order.
        names: of the pictures.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        InputError: no network, or networks of different numbers of pictures.

    Reference: ConvMLP (Li et al., 2021), Fig. 4.
    """
    networks = list(networks)
    counts = {len(network.pictures) for network in networks}
    if len(counts) != 1:
        raise InputError(
            "features() draws at least one network, all of the same pictures. "
            f"Received: {len(networks)} networks, of {sorted(counts)} pictures"
        )
    (count,) = counts
    width = 1 + max(sum(map(len, network.channels.values())) for network in networks)
    rows = count * len(networks)
    figure, panels, (bar,) = new_sheet(
        rows, width, width * _SIDE, rows * (_SIDE + _HEAD)
    )
    for row, places in enumerate(panels):
        index, network = row // len(networks), networks[row % len(networks)]
        _row(places, network, index)
        places[0].set_ylabel(short(network.title, _SIDE), fontsize=8)
        if names is not None and row % len(networks) == 0:
            places[0].set_xlabel(short(names[index], _SIDE), fontsize=8)
    ticks = {0: "smallest", 1: "largest"}
    colour_bar(bar, style.SEQUENTIAL, 0, 1, ticks, "value within each map")
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
