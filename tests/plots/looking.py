"""What every plot has to be: drawable and labelled."""

from kmlp.plots import style


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
    assert any(axes.has_data() for axes in figure.axes)
    for axes in figure.axes:
        if not axes.get_visible() or not axes.axison:
            continue
        sides = (("x", axes.get_xticks()), ("y", axes.get_yticks()))
        for side, ticks in sides:
            if len(ticks):
                # A side that shares its scale may leave the words to its neighbour.
                assert _labelled(figure, axes, side), f"{side} of {axes.get_title()!r}"


def _labelled(figure, axes, side):
    siblings = getattr(axes, f"get_shared_{side}_axes")().get_siblings(axes)
    over_all = getattr(figure, f"get_sup{side}label")()
    return bool(over_all) or any(getattr(one, f"get_{side}label")() for one in siblings)
