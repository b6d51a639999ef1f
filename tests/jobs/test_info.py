"""`kmlp info`: costs of both forms, in every form of table."""

import csv
import io
import json

import pytest

import kmlp
from kmlp.artifacts.origin_text import describe
from kmlp.commands import main

SMALL = ["resmlp_s12", "--image-size", "32", "--set", "depth=1", "width=64"]


def said(argv, capsys):
    assert main.main(["info", *argv]) == 0
    return capsys.readouterr().out


def test_both_forms_stand_beside_one_another(capsys):
    lines = said(["repmlpnet_cifar"], capsys).splitlines()
    model = kmlp.create_model("repmlpnet_cifar")
    forms = [kmlp.profile(model), kmlp.profile(kmlp.merge(model))]
    assert lines[0] == "repmlpnet_cifar at 32x32, float32, memory for 1 image"
    rows = {line[:37].strip(): line[37:].split() for line in lines[3:10]}
    assert lines[2].split() == ["train", "form", "merged"]
    assert rows == {
        "trainable parameters": [f"{p.trainable:,}" for p in forms],
        "non-trainable parameters": [f"{p.non_trainable:,}" for p in forms],
        "multiply-adds (G)": [f"{p.macs / 1e9:.3f}" for p in forms],
        "activations (M)": [f"{p.activations / 1e6:.3f}" for p in forms],
        "weights (MB)": [f"{p.weight_bytes / 1e6:.2f}" for p in forms],
        "activation memory at its peak (MB)": [
            f"{p.peak_activation_bytes / 1e6:.2f}" for p in forms
        ],
        "weights and activations at once (MB)": [
            f"{p.peak_memory / 1e6:.2f}" for p in forms
        ],
    }
    stages = [line.split()[0] for line in lines[11:]]
    assert stages == ["stage", "stem", "P1", "P2", "head", "total"]


def test_csv_has_raw_numbers_of_both_forms(capsys):
    text = said([*SMALL, "--format", "csv", "--batch", "3"], capsys)
    rows = list(csv.DictReader(io.StringIO(text)))
    for form, model in zip(("train form", "merged"), _forms()):
        profile = kmlp.profile(model, batch=3)
        own = [row for row in rows if row["form"] == form]
        *stages, total = own
        assert [row["row"] for row in stages] == [s.name for s in profile.stages]
        for column, of in (
            ("trainable", "trainable"),
            ("non_trainable", "non_trainable"),
            ("multiply_adds", "macs"),
            ("activations", "activations"),
        ):
            assert int(total[column]) == getattr(profile, of)
            assert sum(int(row[column]) for row in stages) == getattr(profile, of)
        assert int(total["activation_bytes"]) == profile.peak_activation_bytes
        assert int(total["weight_bytes"]) == profile.weight_bytes


def _forms():
    model = kmlp.create_model("resmlp_s12", input_shape=(32, 32, 3), depth=1, width=64)
    return model, kmlp.merge(model)


def test_a_row_per_layer(capsys):
    text = said([*SMALL, "--layers", "--format", "markdown"], capsys)
    table = [line for line in text.splitlines() if line.startswith("| ")][8:]
    names = [line.split("|")[1].strip() for line in table]
    assert names == [
        "layer",
        "patch_embed",
        "block0_cross_patch",
        "block0_cross_channel",
        "head",
        "total",
    ]
    columns = {len(line.split("|")) for line in table}
    assert columns == {13}  # 3 of the layer, 4 of each form


def test_the_merged_form_alone_in_half_precision(capsys):
    text = said([*SMALL, "--merged", "--precision", "bfloat16"], capsys)
    _, merged = _forms()
    assert "train form" not in text
    assert "bfloat16" in text
    (line,) = (line for line in text.splitlines() if line.startswith("weights (MB)"))
    assert line.split()[-1] == f"{2 * merged.count_params() / 1e6:.2f}"


def test_rows_of_the_papers_tables_are_architectures(capsys):
    name = "convmlp/table2/mlp_merge"
    assert f"{name} at 224x224" in said([name, "--merged"], capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["convmlp_s", "--set", "depthx=3"], ["depths", "'depthx'"]),
        (["convmlp_s", "--set", "depths=3"], ["depths", "another kind"]),
        (["convmlp/table2/nothing"], ["convmlp/table2/"]),
        (["nowhere/at_all"], ["'nowhere/at_all'"]),
        ([".", "--batch", "2"], ["--batch", "architecture"]),
        ([".", "--format", "csv"], ["--format", "architecture"]),
        ([".", "--set", "depth=1"], ["--set", "architecture"]),
    ],
)
def test_bad_input_gets_one_line(argv, words, capsys):
    assert main.main(["info", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    for word in (*words, "Received"):
        assert word in captured.err


@pytest.mark.parametrize(
    ("top1", "words"),
    [(0.763, "31.8 points per G multiply-adds, 8.48 per M parameters"), (None, None)],
)
def test_a_run_says_what_it_reaches_for_its_cost(top1, words, tmp_path):
    origin = {
        "parameters": {"trainable": 9_000_000},
        "multiply_adds": 2_400_000_000,
        "accuracies": {} if top1 is None else {"top1": top1, "images": 10},
    }
    path = tmp_path / "file.keras"
    path.write_text(json.dumps(origin))
    text = describe(path, "keras", origin)
    assert (words in text) if words else ("for its cost" not in text)
