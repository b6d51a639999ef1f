"""`read_state` against what numpy and PyTorch wrote, whole, damaged and hostile."""

import argparse
import io
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kmlp.weights import checkpoint_forms
from kmlp.weights.checkpoint_forms import form_of, read_checkpoint, read_state

REFERENCE = Path(__file__).parents[1] / "reference"
TORCH_FORMS = ("zip", "legacy")
FORMS = (*TORCH_FORMS, "npz", "safetensors", "h5")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def save_torch(tree, path, form):
    import torch

    torch.save(tree, path, _use_new_zipfile_serialization=form == "zip")
    return path


def save_state(state, path, form):
    """Write a flat state of numpy arrays in any of the forms."""
    if form == "npz":
        with open(path, "wb") as file:
            np.savez(file, **state)
    elif form == "h5":
        with h5py.File(path, "w") as file:
            for name, array in state.items():
                file[name] = array
    elif form == "safetensors":
        pytest.importorskip("safetensors.numpy").save_file(state, path)
    else:
        torch = pytest.importorskip("torch")
        tensors = {name: torch.from_numpy(array) for name, array in state.items()}
        save_torch(tensors, path, form)
    return path


def assert_same(state, expected):
    assert list(state) == list(expected)
    for name, array in expected.items():
        assert state[name].dtype == array.dtype, name
        np.testing.assert_array_equal(state[name], array, err_msg=name, strict=True)
        assert isinstance(state[name], np.ndarray), name
        assert state[name].flags.c_contiguous, name
        assert state[name].flags.writeable, name


def example_state(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "head.weight": rng.normal(size=(5, 7)).astype("float32"),
        "head.bias": rng.normal(size=(5,)).astype("float32"),
        "norm.num_batches_tracked": np.array(seed + 3, "int64"),
    }


def tensors(torch, seed=0):
    return {n: torch.from_numpy(a) for n, a in example_state(seed).items()}


# The published forms


@pytest.mark.parametrize("name", ["repmlpnet", "resmlp", "convmlp", "msmlp", "smlpnet"])
def test_pth_equals_npz(name):
    with np.load(REFERENCE / f"{name}_small.npz") as archive:
        expected = {
            n.removeprefix("state/"): archive[n]
            for n in archive.files
            if n.startswith("state/")
        }
    assert len(expected) > 20
    for suffix in ("npz", "pth"):
        state = read_state(REFERENCE / f"{name}_small.{suffix}")
        assert_same({n: state[n] for n in expected}, expected)
        assert len(state) == len(expected)


def test_npz_group():
    with np.load(REFERENCE / "repmlpnet_small.npz") as archive:
        expected = archive["deploy_state/head.weight"]
    state = read_state(REFERENCE / "repmlpnet_small.npz", key="deploy_state")
    np.testing.assert_array_equal(state["head.weight"], expected)
    with pytest.raises(ValueError, match=r"'deploy_state'.*Received: key='deploy'$"):
        read_state(REFERENCE / "repmlpnet_small.npz", key="deploy")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".bin", ".npz", ""])
def test_form_is_told_by_content(tmp_path, form, suffix):
    state = dict(sorted(example_state().items()))
    path = save_state(state, tmp_path / f"checkpoint{suffix}", form)
    read = read_state(str(path))
    assert_same({name: read[name] for name in sorted(read)}, state)


def test_pytorch_files_need_no_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "head.weight" in read_state(REFERENCE / "repmlpnet_small.pth")


def test_missing_safetensors_names_the_remedy(tmp_path, monkeypatch):
    path = save_state(example_state(), tmp_path / "a.safetensors", "safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"pip install safetensors.*Received: "):
        read_state(path)


# Dtypes and layouts

LAYOUTS = {
    "transposed": lambda t: t.arange(24).float().reshape(4, 6).t(),
    "strided": lambda t: t.arange(60).float().reshape(3, 4, 5)[1:, ::2, 1::3],
    "offset": lambda t: t.arange(10).float()[7:],
    "channels_last": lambda t: t.rand(2, 3, 4, 5).to(memory_format=t.channels_last),
    "expanded": lambda t: t.tensor([[1.0], [2.0]]).expand(2, 3),
    "scalar": lambda t: t.tensor(3.5),
    "empty": lambda t: t.zeros(0, 4),
    "empty inside": lambda t: t.zeros(4, 0),
    "parameter": lambda t: t.nn.Parameter(t.rand(3)),
    "bool": lambda t: t.tensor([True, False, True]),
}
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8")


def subclassed(torch):
    """A tensor with an attribute: pickled by way of `_rebuild_from_type_v2`."""
    tensor = torch.rand(3)
    tensor.note = "mine"
    return tensor


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_layouts_and_dtypes(torch, tmp_path, form):
    tree = {name: build(torch) for name, build in LAYOUTS.items()}
    tree |= {d: torch.arange(-3, 4).to(getattr(torch, d)) for d in DTYPES}
    tree["attribute"] = subclassed(torch)
    if form == "zip":
        tree["uint16"] = torch.tensor([1, 65535], dtype=torch.uint16)
    state = read_state(save_torch(tree, tmp_path / "a.pth", form))
    assert_same(state, {name: t.detach().numpy() for name, t in tree.items()})


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_bfloat16_becomes_float32(torch, tmp_path, form):
    base = torch.randn(4, 6).bfloat16()
    tree = {"a": base, "b": base.t(), "c": torch.tensor(1.5).bfloat16()}
    if form == "safetensors":
        # It stores neither strides nor shared memory.
        tree["b"] = base.t().contiguous()
        pytest.importorskip("safetensors.torch").save_file(tree, tmp_path / "a")
    else:
        save_torch(tree, tmp_path / "a", form)
    state = read_state(tmp_path / "a")
    assert_same(
        dict(sorted(state.items())), {n: t.float().numpy() for n, t in tree.items()}
    )


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_shared_storage(torch, tmp_path, form):
    buffer = torch.arange(20).float()
    tree = {
        "a": buffer[:12].view(3, 4),
        "b": buffer[8:],
        "c": torch.ones(2),
        "d": buffer,
    }
    state = read_state(save_torch(tree, tmp_path / "a.pth", form))
    assert_same(state, {name: tensor.numpy() for name, tensor in tree.items()})
    # Independent arrays: writing one must not reach another.
    state["d"][:] = -1
    assert state["a"][2, 3] == 11


def test_unsupported_tensor_is_refused_not_dropped(torch, tmp_path):
    tree = {"a": torch.ones(2), "b": torch.eye(3).to_sparse()}
    path = save_torch(tree, tmp_path / "a.pth", "zip")
    with pytest.raises(ValueError, match=r"'b' must be dense.*sparse"):
        read_state(path)
    path = save_torch({"a": torch.ones(2, dtype=torch.complex64)}, path, "zip")
    with pytest.raises(ValueError, match=r"'a' must be.*Received: .*Complex"):
        read_state(path)


# Choosing the state: (tree of seeds, key, seed expected). Seeds stand for states.

CHOICES = {
    "model": ({"model": 1, "model_ema": 2, "state_dict": 3}, None, 1),
    "order of names, not of the file": ({"state_dict": 3, "model": 1}, None, 1),
    "state_dict": ({"state_dict_ema": 4, "state_dict": 3}, None, 3),
    "averaged, for want of others": ({"epoch": "x", "state_dict_ema": 4}, None, 4),
    "order of averages": ({"state_dict_ema": 4, "model_ema": 2}, None, 2),
    "nested": ({"model": {"state_dict": 5}, "meta": {"x": {}}}, None, 5),
    "key": ({"model": 1, "model_ema": 2}, "model_ema", 2),
    "nested key": ({"model": 1, "teacher": {"net": 6}}, "teacher/net", 6),
}


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize("case", CHOICES)
def test_choice_of_state(torch, tmp_path, form, case):
    tree, key, seed = CHOICES[case]

    def build(node):
        if isinstance(node, dict):
            return {name: build(child) for name, child in node.items()}
        return tensors(torch, node) if isinstance(node, int) else node

    path = save_torch(build(tree), tmp_path / "a.pth", form)
    assert_same(read_state(path, key), example_state(seed))


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_training_checkpoint(torch, tmp_path, form):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, OnePointZero())
    wrapped = torch.nn.DataParallel(model)
    tree = {
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "schedule itself": schedule,
        "args": argparse.Namespace(lr=0.1, path=Path("x")),
        "config": Config(a=Config(b=1)),
        "best": np.float64(76.6),
        "accuracy": torch.tensor(76.6),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "size": torch.Size([1, 2]),
        "state_dict": wrapped.state_dict(),
        "generator": torch.get_rng_state(),
    }
    tree["state_dict"]["module.config"] = Config(a=1)
    state = read_state(save_torch(tree, tmp_path / "a.pth.tar", form))
    assert_same(state, {n: t.numpy() for n, t in model.state_dict().items()})


class OnePointZero:
    """A trainer's own class, pickled with its attributes."""

    def __call__(self, epoch):
        return 1.0


class Config(dict):
    """As yacs's CfgNode: a mapping with attributes."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.__dict__["frozen"] = True


@pytest.mark.parametrize("form", FORMS)
def test_module_prefix(tmp_path, form):
    state = example_state()
    wrapped = {f"module.{name}": array for name, array in sorted(state.items())}
    read = read_state(save_state(wrapped, tmp_path / "a", form))
    assert sorted(read) == sorted(state)
    twice = {f"module.{name}": array for name, array in wrapped.items()}
    assert set(read_state(save_state(twice, tmp_path / "a", form))) == set(wrapped)
    mixed = {"head": state["head.bias"], "module.norm": state["head.bias"]}
    assert set(read_state(save_state(mixed, tmp_path / "a", form))) == set(mixed)


def test_key_errors_list_what_there_is(torch, tmp_path):
    tree = {"model": tensors(torch), "teacher": {"net": tensors(torch)}, "epoch": 3}
    path = save_torch(tree, tmp_path / "a.pth", "zip")
    for key in ("epoch", "nothing", ""):
        with pytest.raises(ValueError, match=rf"'teacher/net'.*Received: key='{key}'$"):
            read_state(path, key)
    path = save_torch({"net": tensors(torch)}, path, "zip")
    with pytest.raises(ValueError, match=r"name one of \['net'\] by key=.*Received: "):
        read_state(path)


def test_no_tensors(torch, tmp_path):
    cycle = {}
    cycle["model"] = cycle
    for tree in ({"model": {"epoch": 3}}, {}, [torch.ones(2)], cycle, 5):
        path = save_torch(tree, tmp_path / "a.pth", "zip")
        with pytest.raises(
            ValueError, match=r"mapping of names to tensors.*Received: "
        ):
            read_state(path)
    path = save_torch(torch.nn.Linear(2, 2), tmp_path / "a.pth", "legacy")
    with pytest.raises(ValueError, match=r"pickled torch\.nn\.modules\.linear\.Linear"):
        read_state(path)
    for form in ("npz", "safetensors", "h5"):
        path = save_state({}, tmp_path / "empty", form)
        with pytest.raises(ValueError, match="Received: "):
            read_state(path)
    np.savez(tmp_path / "text.npz", config=np.array("{}"))
    with pytest.raises(ValueError, match=r"must hold tensors.*Received: "):
        read_state(tmp_path / "text.npz")


@pytest.mark.parametrize(
    ("form", "label"),
    [
        ("zip", checkpoint_forms.TORCH),
        ("legacy", checkpoint_forms.TORCH_LEGACY),
        ("npz", checkpoint_forms.NPZ),
        ("safetensors", checkpoint_forms.SAFETENSORS),
        ("h5", checkpoint_forms.HDF5),
    ],
)
def test_a_checkpoint_says_what_it_is(tmp_path, form, label):
    path = save_state(example_state(), tmp_path / "a", form)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.form, checkpoint.key) == (label, "")
    assert form_of(path) == label
    if form in TORCH_FORMS:
        torch = pytest.importorskip("torch")
        tree = {"model": {"state_dict": tensors(torch)}}
        assert read_checkpoint(save_torch(tree, path, form)).key == "model/state_dict"


# HDF5


def write_groups(path, tree, link=None):
    """Groups and data sets as mappings nest; `link(file)` adds to them."""
    with h5py.File(path, "w") as file:

        def write(group, node):
            for name, value in node.items():
                if isinstance(value, dict):
                    write(group.create_group(name), value)
                else:
                    group[name] = value

        write(file, tree)
        if link is not None:
            link(file)
    return path


def test_groups_of_hdf5_are_parts_of_names(tmp_path):
    state = example_state()
    nested = {
        "head": {"weight": state["head.weight"], "bias": state["head.bias"]},
        "norm": {"num_batches_tracked": state["norm.num_batches_tracked"]},
    }
    path = write_groups(tmp_path / "a.h5", nested)
    assert_same(dict(sorted(read_state(path).items())), dict(sorted(state.items())))
    path = write_groups(path, {"model": nested, "epoch": "3", "model_ema": {"a": 1.0}})
    assert read_checkpoint(path).key == "model"
    assert read_state(path).keys() == state.keys()
    assert read_state(path, "model_ema").keys() == {"a"}
    assert read_state(path, "model/head").keys() == {"weight", "bias"}
    with pytest.raises(ValueError, match=r"'model/head'.*Received: key='teacher'$"):
        read_state(path, "teacher")
    write_groups(path, {"weight": state["head.weight"].astype(">f2"), "note": "text"})
    assert_same(read_state(path), {"weight": state["head.weight"].astype("float16")})
    with pytest.raises(ValueError, match="must hold tensors"):
        read_state(write_groups(path, {"note": "text"}))


def test_hdf5_reads_no_other_file(tmp_path):
    other = write_groups(tmp_path / "other.h5", {"secret": np.ones(3)})
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(24))

    def links(file):
        file["outside"] = h5py.ExternalLink(str(other), "secret")
        file["soft"] = h5py.SoftLink("/a")
        file["loop"] = h5py.SoftLink("/")
        file["group/again"] = file["/"]

    path = write_groups(tmp_path / "a.h5", {"a": np.zeros(2)}, links)
    assert read_state(path).keys() == {"a"}

    def external(file):
        file.create_dataset("b", (3,), "f8", external=[(str(raw), 0, 24)])

    def virtual(file):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(other), "secret", (3,))
        file.create_virtual_dataset("b", layout)

    for link in (external, virtual):
        write_groups(path, {"a": np.zeros(2)}, link)
        with pytest.raises(ValueError, match=r"lies in another file.*Received: "):
            read_state(path)


def test_files_of_keras_are_told_apart(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "a.weights.h5")
    model.save(tmp_path / "a.keras")
    write_groups(
        tmp_path / "2.h5",
        {"dense": {"dense": {"kernel:0": np.zeros((3, 2))}}},
        lambda file: file.attrs.update(layer_names=[b"dense"]),
    )
    for name, form, words in (
        ("a.weights.h5", checkpoint_forms.KERAS_WEIGHTS, r"load_weights\(\)"),
        ("2.h5", checkpoint_forms.KERAS_WEIGHTS, r"load_weights\(\)"),
        ("a.keras", checkpoint_forms.KERAS, "create_model"),
    ):
        assert form_of(tmp_path / name) == form
        with pytest.raises(ValueError, match=rf"{words}.*PyTorch.*Received: .*{name}$"):
            read_state(tmp_path / name)


# Hostile files


class Call:
    """Unpickling it calls `function(*args)`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize(
    "attack",
    [
        lambda marker: Call(os.system, f"touch '{marker}'"),
        lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
        lambda marker: Call(exec, f"open({str(marker)!r}, 'w').close()"),
        lambda marker: Call(os.mkdir, str(marker)),
    ],
    ids=["system", "eval", "exec", "mkdir"],
)
@pytest.mark.parametrize("place", ["beside", "inside", "name"])
def test_hostile_pickle_does_nothing(torch, tmp_path, form, attack, place):
    marker = tmp_path / "marker"
    evil = attack(marker)
    tree = {
        "beside": {"args": evil, "model": tensors(torch)},
        "inside": {"model": {"evil": [evil], **tensors(torch)}},
        "name": {"model": {evil: 1, **tensors(torch)}},
    }[place]
    path = save_torch(tree, tmp_path / "a.pth", form)
    assert not marker.exists()
    assert_same(read_state(path), example_state())
    assert not marker.exists()
    # The attack is a real one: an ordinary reader falls for it.
    torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize("place", range(5))
def test_hostile_legacy_header(torch, tmp_path, place):
    marker = tmp_path / "marker"
    stream = [0x1950A86A20F9469CFC6C, 1001, {}, {}, []]
    stream[place] = Call(os.system, f"touch '{marker}'")
    path = tmp_path / "a.pth"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in stream))
    with pytest.raises(ValueError, match="Received: "):
        read_state(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "target",
    ["torch._utils\n_rebuild_tensor_v2", "collections\nOrderedDict", "torch\nSize"],
)
@pytest.mark.parametrize("attribute", ["__new__", "__setstate__"])
def test_pickled_state_cannot_alter_the_reader(tmp_path, target, attribute):
    # BUILD with (None, {attribute: None}): pickle would set it on the global itself.
    name = b"X" + struct.pack("<I", len(attribute)) + attribute.encode()
    pickled = b"\x80\x02c" + target.encode() + b"\nN}" + name + b"Ns\x86b."
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    with pytest.raises(ValueError, match="Received: "):
        read_state(tmp_path / "a.pth")
    assert "head.weight" in read_state(REFERENCE / "repmlpnet_small.pth")


class StorageId:
    """Stands for a storage of six float32, `view` as in legacy files."""

    def __init__(self, key="0", count=6, view=None):
        self.key, self.count, self.view = key, count, view


def write_tensor(torch, path, form, storage, *geometry):
    """Write `{"a": tensor}` by hand, with any offset, size and stride."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, StorageId):
                kind = torch.FloatStorage
                return "storage", kind, item.key, "cpu", item.count, item.view
            return None

    buffer = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, storage, *geometry, False, {})
    Pickler(buffer, 2).dump({"a": call})
    values = np.arange(6, dtype="float32").tobytes()
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", buffer.getvalue())
            archive.writestr("a/data/0", values)
    else:
        head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        head = b"".join(pickle.dumps(part, 2) for part in head)
        tail = pickle.dumps(["0"], 2) + struct.pack("<q", 6) + values
        path.write_bytes(head + buffer.getvalue() + tail)
    return path


GEOMETRY = {
    # offset, size, stride -> values, or None where it is refused
    "whole": ((0, (2, 3), (3, 1)), [[0, 1, 2], [3, 4, 5]]),
    "last": ((5, (1,), (1,)), [5]),
    "window": ((0, (4, 3), (1, 1)), [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]),
    "stride of a single element": ((5, (1,), (9,)), [5]),
    "size past the end": ((0, (7,), (1,)), None),
    "offset past the end": ((6, (1,), (1,)), None),
    "scalar past the end": ((6, (), ()), None),
    "stride past the end": ((0, (2, 2), (5, 1)), None),
    "overflowing": ((0, (3,), (1 << 62,)), None),
    "negative offset": ((-1, (2,), (1,)), None),
    "negative size": ((0, (-1,), (1,)), None),
    "negative stride": ((5, (2,), (-1,)), None),
    "ranks differ": ((0, (2, 2), (1,)), None),
    "not numbers": ((0, ("2",), (1,)), None),
    "no tuple": ((0, 2, 1), None),
    "text": (("0", "12", "34"), None),
}


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize("case", GEOMETRY)
def test_tensors_stay_inside_their_storage(torch, tmp_path, form, case):
    geometry, expected = GEOMETRY[case]
    path = write_tensor(torch, tmp_path / "a.pth", form, StorageId(), *geometry)
    if expected is None:
        with pytest.raises(ValueError, match="Received: "):
            read_state(path)
    else:
        assert read_state(path)["a"].tolist() == expected


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        (StorageId(), [0, 1]),
        (StorageId(view=("view", 3, 2)), [3, 4]),
        (StorageId(view=("view", 5, 2)), None),
        (StorageId(view=("view", -2, 2)), None),
        (StorageId(count=1), None),
        (StorageId(key="1"), None),
        (StorageId(key="../data.pkl"), None),
        (StorageId(count="6"), None),
        ("no storage", None),
    ],
)
def test_storages_stay_inside_the_file(torch, tmp_path, form, storage, expected):
    path = write_tensor(torch, tmp_path / "a", form, storage, 0, (2,), (1,))
    if expected is None:
        with pytest.raises(ValueError, match="Received: "):
            read_state(path)
    else:
        assert read_state(path)["a"].tolist() == expected


def test_big_endian_zip(tmp_path):
    source, path = REFERENCE / "resmlp_small.pth", tmp_path / "a.pth"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if "/data/" in name:
                content = np.frombuffer(content, "<f4").byteswap().tobytes()
            new.writestr(name, b"big" if name.endswith("byteorder") else content)
    assert_same(read_state(path), read_state(source))


# Damaged files


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 15, 100, 0.3, 0.6, 0.9, -30, -1])
def test_truncated_files(tmp_path, form, cut):
    path = save_state(example_state(), tmp_path / "a", form)
    content = path.read_bytes()
    length = int(len(content) * cut) if isinstance(cut, float) else cut
    path.write_bytes(content[:length])
    assert path.stat().st_size < len(content)
    with pytest.raises(ValueError, match=r"Received: [^\n]*$") as raised:
        read_state(path)
    assert "\n" not in str(raised.value)


def test_truncated_beside_the_state(torch, tmp_path):
    tree = {"model": tensors(torch), "optimizer": {"moments": torch.zeros(99)}}
    path = save_torch(tree, tmp_path / "a", "legacy")
    assert_same(read_state(path), example_state())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"ends inside storage.*Received: "):
        read_state(path)


@pytest.mark.parametrize("form", ["zip", "npz"])
def test_flipped_bit(tmp_path, form):
    state = example_state()
    path = save_state(state, tmp_path / "a", form)
    content = bytearray(path.read_bytes())
    content[content.index(state["head.weight"].tobytes()) + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"CRC.*Received: "):
        read_state(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a few words, no checkpoint",
        b'{"json": 1}',
        b"\x89HDF\r\n\x1a\n" + bytes(64),
        b"PK\x05\x06" + bytes(18),
        bytes(64),
        bytes(8) + b"{}" + bytes(20),
        b"\xff" * 8 + b"{}",
        pickle.dumps({"a": 1}),
        pickle.dumps(np.ones(3)),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_not_a_checkpoint(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Received: "):
        read_state(path)


def test_objects_in_npz_are_refused(tmp_path):
    marker = tmp_path / "marker"
    evil = np.array([Call(os.mkdir, str(marker))], dtype=object)
    np.savez(tmp_path / "a.npz", a=evil)
    with pytest.raises(ValueError, match="Received: "):
        read_state(tmp_path / "a.npz")
    assert not marker.exists()


def test_missing_file_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "nothing.pth")
    with pytest.raises(IsADirectoryError, match=r"name a file\. Received: "):
        read_state(tmp_path)
