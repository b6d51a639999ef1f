"""`kmlp convert`: every line of its report, and nothing half-written."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import h5py
import keras
import numpy as np
import pytest
from cases import REFERENCE, reference, relative_error, run
from published_states import (
    MMPRETRAIN,
    renamed,
    state_of,
    trainer_file,
    with_counters,
)

import kmlp
from kmlp.artifacts import conversion, origin, source_network
from kmlp.commands import main
from kmlp.pretrained.found import Found
from kmlp.weights.catalogue import WEIGHTS
from kmlp.weights.scheme import derived

torch = pytest.importorskip("torch")


def convert(*argv):
    return main.main(["convert", *map(str, argv)])


def lines(capsys):
    """The report by its titles."""
    captured = capsys.readouterr()
    assert captured.err == ""
    return dict(line.split(maxsplit=1) for line in captured.out.splitlines())


# File, words of its source and of its network.
SOURCES = [
    ("repmlpnet_small.pth", "PyTorch file, key 'model'", "share_sets=(1, 4, 8, 16)"),
    ("resmlp_small.pth", "PyTorch file, 0.1 MB", "ResMLP(width=24, patch_size=8"),
    ("convmlp_small.npz", ".npz file, key 'state'", "mlp_ratios=(2, 3, 2)"),
    ("msmlp_small.pth", "key 'model'", "MSMLP(width=14, depths=(1, 1, 2, 1))"),
    ("smlpnet_small.npz", ".npz file", "SMLPNet(width=8, depths=(1, 2, 2, 1))"),
    ("resmlp_small_timm.npz", ".npz file", "(timm names) at 64x64"),
    ("focal_small.npz", ".npz file", "FocalTransformer(width=16, depths=(2, 2, 2)"),
    ("swin_small.npz", ".npz file", "SwinTransformer(width=16, depths=(2, 2, 2)"),
]


@pytest.mark.parametrize(("file", "source", "network"), SOURCES)
def test_reference_files_become_models(file, source, network, tmp_path, capsys):
    target, report = tmp_path / "new" / "a.keras", tmp_path / "report.json"
    # Of some families no array depends on the size.
    arrays, _ = reference(file.split(".")[0])
    size = str(arrays["case0/images"].shape[1:]).replace(" ", "")
    told = file.startswith(("repmlpnet", "resmlp", "smlpnet", "focal"))
    size = () if told else ("--set", f"input_shape={size}")
    options = ("--check", "--json", report, *size)
    assert convert(REFERENCE / file, target, *options) == 0
    text = lines(capsys)
    assert list(text) == [
        *("source", "network", "arrays", "classifier", "parameters", "images"),
        *("check", "written"),
    ]
    assert source in text["source"]
    assert network in text["network"]
    state = state_of(file.split(".")[0])
    computed = sorted(name for name in state if derived(name))
    used = len(state) - len(computed)
    assert text["arrays"].startswith(f"{used} used, each once")
    assert text["classifier"] == "the source's, 10 classes"
    assert "unknown" in text["images"]
    assert str(target) in text["written"]
    whose = "timm's" if "timm" in file else "the published"
    assert f"from {whose} network" in text["check"]

    arrays, _ = reference(file.split(".")[0])
    model = keras.saving.load_model(target)
    outputs = run(model, arrays["case0/images"])
    assert relative_error(outputs, arrays["case0/outputs"]) <= 1e-5
    found, known = json.loads(report.read_text()), origin.read(target)
    assert found["check"]["difference"] < 1e-5
    assert found["arrays"] == {"used": used, "ignored": computed, "left_out": []}
    assert found["source"]["sha256"] in text["source"]
    assert known["source"] == {k: v for k, v in found["source"].items() if k != "bytes"}
    assert known["source"]["file"] == file
    assert known["form"] == origin.TRAIN_FORM
    assert known["parameters"] == found["parameters"]
    assert known["preprocessing"] is None


def save(path, tree, form="zip"):
    torch.save(tree, path, _use_new_zipfile_serialization=form == "zip")
    return path


def test_merged_and_renamed_files_of_trainers(tmp_path, capsys):
    state = renamed(state_of("repmlpnet_small", "deploy_state"), MMPRETRAIN)
    state = with_counters(state)
    file = save(tmp_path / "mm.pth", trainer_file(state, "mm"), "legacy")
    target = tmp_path / "a.keras"
    assert convert(file, target, "--check") == 0
    text = lines(capsys)
    assert "PyTorch file (legacy form), key 'state_dict'" in text["source"]
    form = "(mmpretrain names) at 64x64, after Locality Injection"
    assert text["network"].endswith(form)
    counters = sum("num_batches" in name for name in state)
    assert text["arrays"] == (
        f"{len(state) - counters} used, each once; {counters} ignored that nothing "
        "learned (num_batches_tracked)"
    )
    arrays, _ = reference("repmlpnet_small")
    model = keras.saving.load_model(target)
    outputs = run(model, arrays["case0/images"])
    assert relative_error(outputs, arrays["case0/outputs_deploy"]) <= 1e-5
    assert model.locality_injected


def test_classifiers_are_kept_new_or_left_out(tmp_path, capsys):
    arrays, _ = reference("smlpnet_small")
    x = arrays["case0/images"]
    file = REFERENCE / "smlpnet_small.pth"
    new, without = tmp_path / "new.keras", tmp_path / "without.keras"
    assert convert(file, new, "--num-classes", 3, "--check") == 0
    text = lines(capsys)
    assert text["classifier"] == "new, for 3 classes (the source's: 10 classes)"
    assert text["arrays"].endswith("left out: mlp_head.0.bias, mlp_head.0.weight")
    assert convert(file, without, "--num-classes", 0, "--check") == 0
    text = lines(capsys)
    assert text["classifier"].startswith("none: the output is features")
    features, other = (keras.saving.load_model(p) for p in (without, new))
    state = state_of("smlpnet_small")
    kernel, bias = state["mlp_head.0.weight"], state["mlp_head.0.bias"]
    outputs = run(features, x) @ kernel.T + bias
    assert relative_error(outputs, arrays["case0/outputs"]) <= 1e-5
    assert other.output_shape == (None, 3)


def test_keys_choose_among_states(tmp_path, capsys):
    tree = trainer_file(with_counters(state_of("smlpnet_small")), "argparse")
    file = save(tmp_path / "a.pth", tree)
    target = tmp_path / "a.keras"
    assert convert(file, target, "--key", "model_ema") == 0
    assert "key 'model_ema'" in lines(capsys)["source"]
    model = keras.saving.load_model(target)
    assert all((keras.ops.convert_to_numpy(w) == 1).all() for w in model.weights)
    assert origin.read(target)["source"]["key"] == "model_ema"
    assert convert(file, target) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert convert(file, target, "--overwrite", "--check") == 0
    assert "key 'model'" in lines(capsys)["source"]


def test_options_that_shapes_do_not_tell(tmp_path, capsys):
    target = tmp_path / "a.keras"
    file = REFERENCE / "msmlp_small.npz"
    options = ("layer_scale=0.5", "input_shape=(64,64,3)", "drop_path_rate=0.25")
    assert convert(file, target, "--set", *options) == 0
    assert "at 64x64" in lines(capsys)["network"]
    config = keras.saving.load_model(target).get_config()
    assert (config["layer_scale"], config["drop_path_rate"]) == (0.5, 0.25)


@pytest.mark.parametrize("promised", [10, 0])
def test_what_the_catalogue_knows_goes_along(promised, tmp_path, monkeypatch, capsys):
    entry = dataclasses.replace(
        WEIGHTS["resmlp_s12.fb_in1k"],
        num_classes=promised,
        image_size=64,
        labels="cifar10" if promised else None,
    )
    path = REFERENCE / "resmlp_small.pth"
    monkeypatch.setattr(
        conversion, "find", lambda arch, source: Found(None, path, entry)
    )
    target = tmp_path / "a.keras"
    assert convert("resmlp_s12.fb_in1k", target) == 0
    text, known = lines(capsys), origin.read(target)
    assert text["source"].startswith("resmlp_s12.fb_in1k: ")
    assert text["images"].startswith("64x64, crop 0.9, bicubic, mean 0.485, 0.456")
    assert known["preprocessing"]["std"] == [0.229, 0.224, 0.225]
    assert known["source"]["licence"] == "Apache-2.0"
    assert known["source"]["name"] == entry.name
    if promised:
        assert text["images"].endswith("10 class names")
        assert known["class_names"][3] == "cat"
    else:
        # A head that its authors do not offer is of their training alone.
        assert text["classifier"] == "none: the output is features (the source's: none)"
        assert text["arrays"] == "40 used, each once; left out: head.bias, head.weight"
        assert known["class_names"] is None


def test_a_published_name_alone_makes_no_published_file(tmp_path, capsys):
    state = with_counters(renamed(state_of("repmlpnet_small"), MMPRETRAIN))
    name = "repmlp-base_3rdparty_8xb64_in1k_20220330-1cb1f11b.pth"
    assert any(name in entry.address for entry in WEIGHTS.values())
    file = save(tmp_path / name, trainer_file(state, "mm"))
    assert convert(file, tmp_path / "a.keras") == 0
    text = lines(capsys)  # the hash is another
    assert text["source"].startswith(f"{name}: ")
    assert "unknown" in text["images"]


def test_a_network_that_differs_is_not_written(tmp_path, monkeypatch, capsys):
    outputs = source_network._outputs
    monkeypatch.setattr(source_network, "_outputs", lambda n, x: outputs(n, x) * 1.001)
    assert convert(REFERENCE / "resmlp_small.npz", tmp_path / "a.keras", "--check") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "differ by 1.0e-03 relative, and 1e-04 are allowed" in error
    assert not list(tmp_path.iterdir())


def test_timms_names_are_checked_without_timm(tmp_path, monkeypatch, capsys):
    def missing(**kwargs):
        raise ImportError("no timm")

    monkeypatch.setattr(source_network, "timm_resmlp", missing)
    file = REFERENCE / "resmlp_small_timm.npz"
    assert convert(file, tmp_path / "a.keras", "--check") == 0
    assert "the published network" in lines(capsys)["check"]


def test_checking_needs_pytorch(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    file, target = REFERENCE / "resmlp_small.pth", tmp_path / "a.keras"
    assert convert(file, target, "--check") == 2
    assert "pip install torch" in capsys.readouterr().err
    assert not target.exists()
    assert convert(file, target) == 0  # reading needs none


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_hostile_files_do_nothing(tmp_path, capsys):
    state = {n: torch.from_numpy(a) for n, a in state_of("resmlp_small").items()}
    marker, target = tmp_path / "marker", tmp_path / "a.keras"
    for form in ("zip", "legacy"):
        file = save(tmp_path / "a.pth", {"model": state, "args": Evil(marker)}, form)
        assert convert(file, target, "--overwrite") == 0
        file = save(tmp_path / "a.pth", Evil(marker), form)
        assert convert(file, tmp_path / "b.keras") == 2
        assert "mapping of names to tensors" in capsys.readouterr().err
    assert not marker.exists()
    assert sorted(os.listdir(tmp_path)) == ["a.keras", "a.pth"]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A folder with what can be wrong; its names stand in the cases below."""
    folder = tmp_path_factory.mktemp("spoilt")
    state = state_of("resmlp_small")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    save(folder / "zip.pth", {"model": tensors})
    save(folder / "legacy.pth", {"model": tensors}, "legacy")
    np.savez(folder / "a.npz", **state)
    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in state.items():
            file[name.replace(".", "/")] = array
    (folder / "a.safetensors").write_bytes(safetensors(state))
    for name in ("zip.pth", "legacy.pth", "a.npz", "a.h5", "a.safetensors"):
        assert kmlp.weights.read_state(folder / name).keys() == state.keys()
        content = (folder / name).read_bytes()
        (folder / f"half.{name}").write_bytes(content[: len(content) // 2])
    (folder / "empty.pth").write_bytes(b"")
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "folder.pth").mkdir()
    (folder / "pickle.pth").write_bytes(pickle.dumps({"a": 1}))
    spoilt = {**state, "norm.alpha": state["norm.alpha"] * np.nan}
    np.savez(folder / "nan.npz", **spoilt)
    gap = {name: array for name, array in state.items() if "attn.b" not in name}
    np.savez(folder / "gap.npz", **gap)
    np.savez(folder / "more.npz", **state, aux=np.zeros(3))
    np.savez(folder / "resnet.npz", **{"layer1.0.conv1.weight": np.zeros((3, 3))})
    (folder / "there.keras").write_text("earlier")
    return folder


def safetensors(state):
    """The form's bytes."""
    header, offset = {}, 0
    for name, array in state.items():
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": span}
        offset += array.nbytes
    text = json.dumps(header).encode()
    values = b"".join(array.astype("<f4").tobytes() for array in state.values())
    return len(text).to_bytes(8, "little") + text + values


HALVES = ["zip.pth", "legacy.pth", "a.npz", "a.h5", "a.safetensors"]
BAD = [
    *((f"half.{name} a.keras", ["damaged", f"half.{name}"]) for name in HALVES),
    ("empty.pth a.keras", ["PyTorch", "which is empty"]),
    ("text.pth a.keras", ["PyTorch", "which begins with b'no check"]),
    ("pickle.pth a.keras", ["damaged", "magic number"]),
    ("folder.pth a.keras", ["a folder: name a file"]),
    ("nothing.pth a.keras", ["neither", "kmlp list --weights"]),
    ("resmlp_s12.fb a.keras", ["fb_in1k", "'fb'"]),
    ("smlpnet_t.default a.keras", ["smlpnet_t", "recipe"]),
    ("resnet.npz a.keras", ["no family that kmlp knows", "layer1.0.conv1.weight"]),
    ("nan.npz a.keras", ["1 arrays hold NaN or infinity (norm.alpha)"]),
    ("gap.npz a.keras", ["Missing from the state (3): blocks.0.attn.bias (our"]),
    ("more.npz a.keras", ["Surplus in the state (1): aux. Received"]),
    (
        "zip.pth a.keras --arch resmlp_s12",
        ["'resmlp_s12'", "ResMLP(width=24, patch_size=8"],
    ),
    (
        "zip.pth a.keras --arch convmlp_s",
        ["'convmlp_s'", "ResMLP(width=24, patch_size=8"],
    ),
    ("zip.pth a.keras --arch resmlp_12", ["resmlp_s12"]),
    ("zip.pth a.keras --key model_ema", ["['model']", "key='model_ema'"]),
    ("a.npz a.keras --key state", ["prefixes []", "key='state'"]),
    ("zip.pth a.keras --set dept=3", ["choose depth", "'dept'"]),
    ("zip.pth a.keras --set depth=4", ["with depth=3", "Missing from the state (12)"]),
    ("zip.pth a.keras --set depth=x", ["no such network", "depth='x'"]),
    ("zip.pth a.keras --set num_classes=3", ["--num-classes"]),
    ("zip.pth a.keras --set input_shape=(96,96,3)", ["=(64, 64, 3)", "kmlp.resize()"]),
    ("zip.pth a.keras --set mlp_ratio=4 norm='layer'", ["never published"]),
    ("zip.pth a.pth", [".keras file", "'a.pth'"]),
    ("zip.pth a", [".keras file", "'a'"]),
    ("zip.pth there.keras", ["--overwrite", "'there.keras'"]),
    ("zip.pth there.keras/a.keras", ["write permission", "'there.keras/a.keras'"]),
    ("zip.pth a.keras --json no/a.json", ["--json", "no/a.json"]),
    ("there.keras a.keras", ["begins with b'earlier'"]),
]


@pytest.mark.parametrize(("argv", "words"), BAD, ids=[argv for argv, _ in BAD])
def test_bad_input_gets_one_line(argv, words, spoilt, monkeypatch, capsys):
    monkeypatch.chdir(spoilt)
    before = sorted(os.listdir(spoilt))
    assert convert(*argv.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("kmlp: ")
    for word in (*words, "Received: "):
        assert word in captured.err, captured.err
    assert sorted(os.listdir(spoilt)) == before
    assert (spoilt / "there.keras").read_text() == "earlier"


def test_a_fresh_process_says_one_line():
    """None of what TensorFlow's libraries say when they are loaded."""
    loud = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-m", "kmlp", "convert", "nothing", "model.keras"]
    done = subprocess.run(command, capture_output=True, text=True, env=loud)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("kmlp: SOURCE is the path of a file")


def test_a_disk_that_fills_leaves_nothing(tmp_path, monkeypatch, capsys):
    def full(self, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    assert convert(REFERENCE / "resmlp_small.pth", tmp_path / "a.keras") == 2
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["-1", "few", "1.5"])
def test_classes_are_counted(value, capsys):
    with pytest.raises(SystemExit) as stop:
        convert("a.pth", "a.keras", f"--num-classes={value}")
    assert stop.value.code == 2
    assert f"not '{value}'" in capsys.readouterr().err
