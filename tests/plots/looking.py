"""What every plot has to be: drawable, labelled, and whole within its edges."""

from kmlp.plots import style

EDGE = 0.05  # inches that a letter may come too near


def check_figure(figure, folder):
    """Writes a figure in two formats, and looks at its axes.

    Args:
        figure: what a function of `kmlp.plots` returned.
        folder: to write to.
    """
    files = [folder / "figure.png", folder / "figure.svg"]
    for path in files:
        style.save(figure, path, dpi=40)
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in files[1].read_bytes()[:1000]
    check_edges(figure)
    assert any(axes.has_data() for axes in figure.axes)
    for axes in figure.axes:
        if not axes.get_visible() or not axes.axison:
            continue
        sides = (("x", axes.get_xticks()), ("y", axes.get_yticks()))
        for side, ticks in sides:
            if len(ticks):
                # A side that shares its scale may leave the words to its neighbour.
                assert _labelled(figure, axes, side), f"{side} of {axes.get_title()!r}"


def check_edges(figure):
    """Nothing that is drawn is cut off."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    room = (drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1)
    assert min(room) > -EDGE, f"left, bottom, right, top: {room} inches"


def _labelled(figure, axes, side):
    siblings = getattr(axes, f"get_shared_{side}_axes")().get_siblings(axes)
    over_all = getattr(figure, f"get_sup{side}label")()
    return bool(over_all) or any(getattr(one, f"get_{side}label")() for one in siblings)
