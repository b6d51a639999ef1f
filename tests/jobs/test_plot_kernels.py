"""`kmlp plot locality | rows | sparsity`: from a file of weights to a picture."""

import csv

import cases
import pytest

import kmlp
from kmlp.analysis.injection import locality
from kmlp.analysis.sparsity import sparsity
from kmlp.commands.main import main

PNG = b"\x89PNG"
BLOCKS = ["stage0_block0", "stage1_block0", "stage1_block1", "stage2_block0"]
SAVED = {"repmlpnet": "repmlpnet", "plain": "resmlp", "convmlp": "convmlp"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """`{name: path}` of saved networks."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for name, case in SAVED.items():
        paths[name] = folder / f"{name}.keras"
        cases.build(case).save(paths[name])
    paths["merged"] = folder / "merged.keras"
    kmlp.merge(cases.build("repmlpnet")).save(paths["merged"])
    return paths


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plot(kind, *arguments):
    return main(["plot", kind, *map(str, arguments)])


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_locality_draws_and_tells_the_shares(weights, tmp_path, capsys):
    path = weights["repmlpnet"]
    assert plot("locality", "--weights", path, "--csv", "shares.csv") == 0
    printed = capsys.readouterr().out
    assert "stage2_block0_channel_perceptron (--layer takes another" in printed
    assert (tmp_path / "locality.png").read_bytes().startswith(PNG)
    expected = locality(kmlp.create_model(weights=path)).layers
    rows = read("shares.csv")
    assert [row["layer"] for row in rows] == [row.name for row in expected]
    for row, layer in zip(rows, expected):
        assert float(row["inside_before"]) == pytest.approx(layer.before, rel=1e-12)
        assert float(row["inside_after"]) == pytest.approx(layer.after, rel=1e-12)


def test_locality_of_a_layer_position_and_share_sets(weights, monkeypatch):
    drawn = []
    monkeypatch.setattr("kmlp.plots.locality", drawn.extend)
    monkeypatch.setattr("kmlp.plots.style.save", lambda *_: None)
    options = ("--layer", "3", "--share-set", "2", "0", "--position", "1", "5")
    assert plot("locality", "--weights", weights["repmlpnet"], *options) == 0
    places = [(pair.name, pair.share_set, pair.position) for pair in drawn]
    name = "stage1_block1_channel_perceptron"
    assert places == [(name, 2, (1, 5)), (name, 0, (1, 5))]


def test_list_prints_the_layers_and_draws_nothing(weights, tmp_path, capsys):
    for kind in ("locality", "rows"):
        assert plot(kind, "--weights", weights["repmlpnet"], "--list") == 0
        _, *lines = capsys.readouterr().out.splitlines()
        names = [line.split()[1] for line in lines]
        assert names == [f"{block}_channel_perceptron" for block in BLOCKS]
        assert all(line.endswith("1×1 3×3") for line in lines)
    assert not list(tmp_path.iterdir())


# Options -> the layers whose rows are drawn, and how many images of the first.
ROWS = [
    ("repmlpnet", (), BLOCKS, (6, 6)),
    ("merged", (), BLOCKS, (6, 6)),
    ("repmlpnet", ("--layers", "stage1*"), BLOCKS[1:3], (4, 6)),
    ("repmlpnet", ("--layers", "4", "2"), BLOCKS[1::2], (4, 6)),
    ("repmlpnet", ("--share-set", "5"), BLOCKS[3:], (2, 4)),
    ("repmlpnet", ("--central", "3", "--layers", "1"), BLOCKS[:1], (3, 3)),
    ("repmlpnet", ("--all", "--layers", "1"), BLOCKS[:1], (8, 16)),
]


@pytest.mark.parametrize(("form", "options", "labels", "first"), ROWS)
def test_rows_of_the_layers_asked_for(
    form, options, labels, first, weights, monkeypatch
):
    drawn = []
    monkeypatch.setattr("kmlp.plots.rows", drawn.extend)
    monkeypatch.setattr("kmlp.plots.style.save", lambda *_: None)
    assert plot("rows", "--weights", weights[form], *options) == 0
    assert [kernel.label for kernel in drawn] == labels
    assert drawn[0].images.shape[:2] == first


def test_rows_are_written(weights, tmp_path, capsys):
    out = ("--out", "rows.svg", "--share-set", "5")
    assert plot("rows", "--weights", weights["repmlpnet"], *out) == 0
    assert b"<svg" in (tmp_path / "rows.svg").read_bytes()[:1000]
    assert "left out stage0_block0" in capsys.readouterr().out


def test_sparsity_of_several_networks(weights, tmp_path, capsys):
    networks = ("--weights", weights["plain"], "--weights", weights["convmlp"])
    options = ("--threshold", "0.01", "--csv", "shares.csv")
    assert plot("sparsity", *networks, *options) == 0
    assert (tmp_path / "sparsity.png").read_bytes().startswith(PNG)
    rows = read("shares.csv")
    for name in ("plain", "convmlp"):
        expected = sparsity(kmlp.create_model(weights=weights[name]), 0.01)
        found = [row for row in rows if row["network"] == name]
        assert [row["layer"] for row in found] == [r.name for r in expected.layers]
        for row, layer in zip(found, expected.layers):
            assert float(row["below"]) == pytest.approx(layer.small, abs=1e-12)
            assert float(row["threshold"]) == 0.01
    printed = capsys.readouterr().out
    total = expected.by_kind()["convolution"]
    assert f"{total.small:.1%}" in printed
    assert "below 1%" in printed


# Kind, network, options -> what is said. Nothing is written.
REFUSED = [
    ("locality", "convmlp", (), "RepMLPNet, ResMLP, sMLPNet and MLP-Mixer have"),
    ("rows", "convmlp", (), "RepMLPNet, ResMLP, sMLPNet and MLP-Mixer have"),
    ("locality", "plain", (), "--local-kernels 1,3"),
    ("locality", "merged", (), "merged already"),
    ("locality", "repmlpnet", ("--layer", "stage1_blok0"), "stage1_block0_channel"),
    ("locality", "repmlpnet", ("--layer", "9"), "a number from 1 to 4"),
    ("locality", "repmlpnet", ("--layer", "stage1*"), "and 2 are so named"),
    ("rows", "repmlpnet", ("--layers", "1", "nothing"), "Received: 'nothing'"),
    ("locality", "repmlpnet", ("--position", "8", "0"), "row 0 to 1, column 0 to 3"),
    ("locality", "repmlpnet", ("--share-set", "0", "8"), "share-sets 0 to 7"),
    ("rows", "repmlpnet", ("--share-set", "8"), "--share-set takes 0 to 7"),
    ("sparsity", "plain", ("--threshold", "1"), "a share below 1"),
    ("rows", "plain", ("--out", "rows.jpg"), ".png, .svg, .pdf"),
    ("sparsity", "plain", ("--csv", "no/such/folder.csv"), "--csv takes the path"),
]


@pytest.mark.parametrize(("kind", "network", "options", "message"), REFUSED)
def test_what_cannot_be_drawn_is_said_in_a_line(
    kind, network, options, message, weights, tmp_path, capsys
):
    assert plot(kind, "--weights", weights[network], *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Received: " in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["resmlp_s24", "convmlp/table2/plain_conv"])
def test_an_architecture_has_nothing_to_show(name, capsys):
    assert plot("rows", "--weights", name) == 2
    error = capsys.readouterr().err
    assert "has learned nothing yet" in error
    assert error.endswith(f"Received: {name!r}\n")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("locality", ("--share-set", "-1"), "must be 0 or more"),
        ("locality", ("--position", "1"), "expected 2 arguments"),
        ("rows", ("--central", "0"), "must be a positive integer"),
        ("rows", ("--central", "2", "--all"), "not allowed with"),
        ("sparsity", ("--threshold", "0"), r"must be in (0, 1]"),
    ],
)
def test_options_are_checked_before_anything_is_read(kind, options, message, capsys):
    with pytest.raises(SystemExit):
        plot(kind, "--weights", "nothing", *options)
    assert message in capsys.readouterr().err
