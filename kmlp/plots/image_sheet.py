"""Sheets of images: a grid of panels above its colour bars."""

from kmlp.plots import style

# Inches: of the bars' strip, of a bar, of the room for what stands at a bar's ends.
_BARS, _LONGEST, _THICK, _ENDS = 0.8, 3.4, 0.1, 0.6
_TOP = 0.17  # of a bar's lower edge, from the strip's upper one


def new_sheet(rows, columns, width, height, bars=1):
    """A figure with a grid of panels and places for colour bars below it.

    Args:
        rows, columns: of the panels.
        width, height: of the grid in inches; bars are added to it.
        bars: number of colour bars.

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


def colour_bar(axes, colours, lowest, highest, ticks, label):
    """Fills a bar's place.

    Args:
        axes: from `new_sheet`.
        colours: name of the scale.
        lowest, highest: its ends.
        ticks: `{value: what stands there}`, narrow words.
        label: what the colours are, in lines of up to 30 letters.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(lowest, highest), colours),
        cax=axes,
        orientation="horizontal",
    )
    bar.outline.set_visible(False)
    bar.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=8)
    bar.set_label(label, fontsize=8)


def short(text, width):
    """Text of 8 points that stays within a width in inches, cut in its middle."""
    room = int(width / 0.074)
    if len(text) <= room:
        return text
    half = (room - 1) // 2
    return f"{text[: room - 1 - half]}…{text[-half:]}"
