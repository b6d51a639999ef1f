"""Compression: from a run's folder to a smaller network and what is said of it."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.analysis.linear import linear_layers
from kmlp.artifacts import origin
from kmlp.artifacts.locating import TFLITE
from kmlp.artifacts.origin_text import describe
from kmlp.commands import compress, evaluate
from kmlp.data.sources import open_source
from kmlp.recipes import recipe_for, to_json

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None,
    reason="needs tensorflow-model-optimization",
)

SCRIPT = Path(__file__).parents[2] / "training" / "compress.py"
SIZE = 16
FAST = ("--data", "digits", "--images", "90", "--calibration-images", "40")
LEARNS = ("--learning-rate", "0.01", "--epochs", "2")
NAMES = {"trained.keras", "model.float32.tflite", "model.int8.tflite"}
NAMES |= {"report.json", "recipe.json"}


def write_run(folder, model):
    """A run's folder as training leaves it, without having trained."""
    source = open_source(None)
    recipe = recipe_for("resmlp_s12", embedded=True)
    changes = {"image_size": SIZE, "mean": source.mean, "std": source.std}
    recipe = dataclasses.replace(recipe, **changes)
    data = {"name": source.name, "class_names": list(source.class_names)}
    folder.mkdir(parents=True)
    model.save(folder / "trained.keras")
    written = {"recipe": to_json(recipe), "data": data}
    (folder / "recipe.json").write_text(json.dumps(written))
    return folder


@pytest.fixture(scope="module")
def resmlp(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = kmlp.ResMLP(
        10, (SIZE, SIZE, 3), patch_size=4, width=16, depth=2, local_kernels=(3,)
    )
    cases.randomize(model)
    return write_run(tmp_path_factory.mktemp("runs") / "resmlp" / "1", model)


@pytest.fixture(scope="module")
def repmlpnet(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model = kmlp.RepMLPNet(
        10,
        (SIZE, SIZE, 3),
        depths=(1, 1),
        widths=(8, 16),
        share_sets=(2, 4),
        patch_size=2,
        gate_reduction=1,  # a gate of one unit may be dead
    )
    cases.randomize(model)
    return write_run(tmp_path_factory.mktemp("runs") / "repmlpnet" / "1", model)


@pytest.fixture(scope="module")
def convmlp(tmp_path_factory):
    model = kmlp.ConvMLP(
        10, (SIZE, SIZE, 3), stem_width=8, conv_blocks=1, widths=(8,), depths=(1,),
        mlp_ratios=(2,),
    )  # fmt: skip
    return write_run(tmp_path_factory.mktemp("runs") / "convmlp" / "1", model)


def run(capfd, *arguments):
    """`(exit code, standard output, the job's lines on standard error)`."""
    try:
        code = compress.main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        code = stopped.code
    output, error = capfd.readouterr()
    lines = [
        line
        for line in error.splitlines()
        if not re.match(r"[IWE]\d{4} |WARNING:|.*Warning|\s|W0000", line)
    ]
    return code, output, "\n".join(lines).strip()


def compressed(capfd, folder, *arguments):
    """The version's folder, its report and its network."""
    output = folder / "out"
    code, said, error = run(capfd, *arguments, "--output", output, *FAST)
    assert code == 0, error
    (version,) = output.iterdir()
    assert f"Published {version}" in said
    assert {file.name for file in version.iterdir()} == NAMES
    report = json.loads((version / "report.json").read_text())
    return version, report, keras.saving.load_model(version / "trained.keras")


def assert_share(report, model, wanted):
    """Zeros in the network and in its report, to the weight."""
    for linear in linear_layers(model):
        kernel = linear.kernel.numpy()
        kept = round(kernel.size * (1 - wanted.get(linear.kind, 0)))
        assert (kernel != 0).sum() == kept
    for kind, share in wanted.items():
        assert report["sparsity"]["before"][kind]["zero"] == 0
        after = report["sparsity"]["after"][kind]["zero"]
        assert after == pytest.approx(share, abs=0.01)


def test_pruning_publishes_what_it_says(resmlp, tmp_path, capfd):
    before = (resmlp / "trained.keras").read_bytes()
    shares = ("--mixing-sparsity", "0.8", "--sparsity", "0.6")
    version, report, model = compressed(
        capfd, tmp_path, resmlp, "--method", "prune", *shares, *LEARNS
    )
    assert_share(report, model, {"patch mixing": 0.8, "channel": 0.6})
    assert (resmlp / "trained.keras").read_bytes() == before
    forms = report["forms"]
    assert set(forms) == {"float32", "int8", "compressed", "compressed int8"}
    assert forms["compressed"]["top1"] > forms["float32"]["top1"] + 0.2  # it learned
    for form in forms.values():
        assert form["fully_connected_only"]
        assert set(form["latency_ms"]) == {"1", "2"}
        assert form["gzip_bytes"] < form["bytes"]
    assert forms["compressed"]["gzip_bytes"] < 0.85 * forms["float32"]["gzip_bytes"]
    assert forms["int8"]["bytes"] < forms["float32"]["bytes"]
    # The artifacts say the same, and evaluation finds it again.
    for name in ("trained.keras", "model.float32.tflite", "model.int8.tflite"):
        said = origin.read(version / name)
        assert said["compression"]["method"] == "prune"
        assert said["form"] == "merged"
        if name != "trained.keras":
            form = "compressed int8" if "int8" in name else "compressed"
            found = said["accuracies"]
            assert (found["images"], found["top1"]) == (90, forms[form]["top1"])
            shown = describe(version / name, TFLITE, said)
            assert f"{forms[form]['top1']:.2%} of 90 images" in shown
    result = tmp_path / "result.json"
    arguments = [str(version), "--data", "digits", "--json", str(result)]
    assert evaluate.main(arguments) == 0
    assert 0 < json.loads(result.read_text())["top1"] < 1


@pytest.mark.long
def test_two_of_four(repmlpnet, tmp_path, capfd):
    _, report, model = compressed(
        capfd, tmp_path, repmlpnet, "--method", "prune", "--pattern", "2:4"
    )
    assert_share(report, model, {"patch mixing": 0.5, "channel": 0.5})
    assert report["compression"]["pattern"] == "2:4"
    for linear in linear_layers(model):
        if linear.kind in ("patch mixing", "channel"):
            rows = np.moveaxis(linear.kernel.numpy(), linear.input_axis, -1)
            zeros = (rows.reshape(-1, 4) == 0).sum(axis=1)
            assert (zeros == 2).all()


@pytest.mark.long
def test_clusters(resmlp, tmp_path, capfd):
    _, report, model = compressed(
        capfd, tmp_path, resmlp, "--method", "cluster", "--clusters", "5", *LEARNS
    )
    values = {
        linear.kind: len(np.unique(linear.kernel.numpy()))
        for linear in linear_layers(model)
    }
    assert values["patch mixing"] == values["channel"] == 5
    assert report["compression"]["clusters"] == 5
    forms = report["forms"]
    assert forms["compressed"]["top1"] > forms["float32"]["top1"] + 0.1
    assert forms["compressed"]["gzip_bytes"] < 0.9 * forms["float32"]["gzip_bytes"]


@pytest.mark.long
def test_quantisation_aware_training(resmlp, tmp_path, capfd):
    version, report, _ = compressed(
        capfd, tmp_path, resmlp, "--method", "quantize", *LEARNS
    )
    said = origin.read(version / "model.int8.tflite")
    assert said["artifact"]["quantize"] == "int8, aware"
    assert said["audit"]["fully_connected_only"]
    forms = report["forms"]
    assert forms["compressed"]["top1"] > forms["float32"]["top1"] + 0.1
    gap = forms["compressed int8"]["top1"] - forms["compressed"]["top1"]
    assert abs(gap) <= 0.06  # five of ninety images


@pytest.mark.long
def test_two_devices(resmlp, tmp_path):
    command = [sys.executable, str(SCRIPT), str(resmlp), "--method", "prune", *FAST]
    command += ["--devices", "2", "--output", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads((tmp_path / "out" / "1" / "report.json").read_text())
    model = keras.saving.load_model(tmp_path / "out" / "1" / "trained.keras")
    assert_share(report, model, {"patch mixing": 0.9, "channel": 0.5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: --method"),
        (("--method", "shrink"), "invalid choice: 'shrink'"),
        (("--method", "prune", "--sparsity", "1"), r"must be in \[0, 1\), not '1'"),
        (("--method", "prune", "--clusters", "4"), "--clusters goes with --method clu"),
        (("--method", "cluster", "--clusters", "1"), "must be at least 2, not 1"),
        (("--method", "cluster", "--sparsity", "0.5"), "--sparsity goes with --method"),
        (("--method", "quantize", "--devices", "2"), "--devices goes with --method pr"),
        (
            ("--method", "prune", "--pattern", "2:4", "--mixing-sparsity", "0.9"),
            "half are zero: leave --mixing-sparsity out",
        ),
        (
            ("--method", "prune", "--sparsity", "0", "--mixing-sparsity", "0"),
            "Nothing is pruned",
        ),
        (("--method", "cluster", "--clusters", "9999999"), "nothing is clustered"),
    ],
)
def test_bad_options_are_one_line(arguments, message, resmlp, tmp_path, capfd):
    output = tmp_path / "out"
    code, _, error = run(capfd, resmlp, *arguments, *FAST, "--output", output)
    assert code == 2
    assert re.search(message, error)
    assert len(error.splitlines()) == 1
    assert not list(output.glob("*"))


@pytest.mark.parametrize("method", ["cluster", "quantize"])
def test_a_network_without_a_twin_is_named(method, convmlp, tmp_path, capfd):
    code, _, error = run(
        capfd, convmlp, "--method", method, *FAST, "--output", tmp_path / "out"
    )
    assert code == 2
    assert "which has no twin" in error
    assert len(error.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


def test_what_is_no_run_is_named(resmlp, tmp_path, capfd):
    prune = ("--method", "prune", *FAST, "--output", tmp_path / "out")
    code, _, error = run(capfd, tmp_path / "none", *prune)
    assert (code, len(error.splitlines())) == (2, 1)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "trained.keras").write_bytes((resmlp / "trained.keras").read_bytes())
    code, _, error = run(capfd, bare, *prune)
    assert code == 2
    assert "recipe.json says how its images are prepared" in error
    (bare / "recipe.json").write_text('{"recipe": {"name": "old"}}')
    code, _, error = run(capfd, bare, *prune)
    assert code == 2
    assert "not a recipe of this version" in error
    assert not list((tmp_path / "out").glob("*"))


def test_other_data_are_named(resmlp, tmp_path, capfd):
    import image_folders

    data = image_folders.write_folder(tmp_path / "images")
    code, _, error = run(
        capfd, resmlp, "--method", "prune", "--data", data, "--output", tmp_path / "out"
    )
    assert code == 2
    assert "classes that it was trained on" in error


def test_an_unwritable_output_is_named(resmlp, tmp_path, capfd):
    (tmp_path / "file").touch()
    code, _, error = run(
        capfd, resmlp, "--method", "prune", *FAST, "--output", tmp_path / "file" / "out"
    )
    assert code == 2
    assert "--output: Cannot write" in error


def test_without_tfmot_one_line_says_what_to_install(
    resmlp, tmp_path, capfd, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_model_optimization", None)
    code, _, error = run(
        capfd, resmlp, "--method", "prune", *FAST, "--output", tmp_path / "out"
    )
    assert code == 2
    assert "pip install 'kmlp[optimize]'" in error
    assert len(error.splitlines()) == 1
