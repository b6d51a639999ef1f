"""The one style: colours for every eye, files as they were asked for."""

import itertools
import sys

import numpy as np
import pytest
from looking import check_figure

from kmlp.commands.main import main
from kmlp.plots import style

# Vision without one kind of cone, on linear light: Viénot, Brettel and Mollon (1999),
# Machado, Oliveira and Fernandes (2009) for the third.
DEFICIENT = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
    "all cones": np.eye(3),
}


def lab(linear):
    """CIE L*a*b* of linear sRGB, white D65."""
    to_xyz = np.array(
        (
            (0.4124, 0.3576, 0.1805),
            (0.2126, 0.7152, 0.0722),
            (0.0193, 0.1192, 0.9505),
        )
    )
    xyz = to_xyz @ np.clip(linear, 0, 1) / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array((116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])))


def linear(colour):
    colour = np.asarray(colour, float)
    return np.where(colour > 0.04045, ((colour + 0.055) / 1.055) ** 2.4, colour / 12.92)


@pytest.mark.parametrize("vision", DEFICIENT)
def test_series_are_told_apart_by_every_eye(vision):
    seen = [lab(np.asarray(DEFICIENT[vision]) @ linear(c)) for c in style.COLOURS]
    # 2.3 is what can just be seen; ten of that is plain at a glance, in any order.
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 12, vision
    # And from the paper that they stand on.
    assert min(100 - colour[0] for colour in seen) > 20, vision


def test_series_differ_without_colour_too():
    signs = [
        (kind["marker"], str(kind["linestyle"])) for kind in map(style.series, range(8))
    ]
    assert len(set(signs)) == len(signs)


@pytest.mark.parametrize("name", [style.SEQUENTIAL])
def test_brightness_of_images_rises_steadily(name):
    import matplotlib

    colours = matplotlib.colormaps[name](np.linspace(0, 1, 64))[:, :3]
    for vision, matrix in DEFICIENT.items():
        brightness = [lab(np.asarray(matrix) @ linear(c))[0] for c in colours]
        assert np.all(np.diff(brightness) > 0), vision


@style.plot
def small():
    figure = style.new_figure(2, 2)
    axes = figure.add_subplot(xlabel="a", ylabel="b")
    axes.plot([0, 1], [1, 0], **style.series(0))
    return figure


@pytest.mark.parametrize("ending", style.FORMATS)
def test_the_same_figure_is_the_same_file(ending, tmp_path):
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path in paths:
        style.save(small(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_files(tmp_path):
    figure = small()
    check_figure(figure, tmp_path)
    style.save(figure, tmp_path / "figure.PDF")
    assert (tmp_path / "figure.PDF").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match=r"\.png, \.svg, \.pdf.*Received: .*bmp"):
        style.save(figure, tmp_path / "figure.bmp")
    assert not (tmp_path / "figure.bmp").exists()


def test_without_matplotlib_one_line_says_what_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        style.plot(lambda: None)()
    # The command says so before it opens anything.
    assert main(["plot", "saliency", "--weights", "nothing", "nowhere.png"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "pip install matplotlib" in said
