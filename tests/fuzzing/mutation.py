"""Files of every form, damaged or crafted: the same file for the same seed."""

import atexit
import copy
import functools
import io
import json
import pickle
import pickletools
import random
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

REFERENCE = Path(__file__).parents[1] / "reference"


@functools.cache
def run_folder():
    """Return a run's folder whose artifacts carry their digests."""
    from kmlp.artifacts import origin

    folder = Path(tempfile.mkdtemp()) / "1"
    atexit.register(shutil.rmtree, folder.parent)
    shutil.copytree(REFERENCE / "first_house" / "run", folder)
    for path in (folder, folder / "trained.keras", folder / "model.tflite"):
        origin.add(path)
    return folder


STATE = "resmlp_small"
WORDS = (
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x00\x00\x01\x00",
    b"\x01\x00\x00\x00",
)
ODD = (
    None,
    [],
    {},
    [[]],
    "",
    "x",
    "٣",
    True,
    False,
    -1,
    0,
    1,
    5,
    1000000000,
    1 << 40,
    1 << 80,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    [{}],
    [None],
    ["a"] * 300,
    {"a": {"b": {}}},
    "../../etc/passwd",
    "\x1b[31m",
)


def bytes_of(content, rng):
    """Flip, overwrite, repeat, insert, remove: a few places, or the end cut off."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randrange(len(content) or 1)
        # Headers are where a byte means most.
        at = rng.choice((at, at, at % 512, len(content) - 1 - at % 512))
        at = max(0, min(at, len(content) - 1))
        kind = rng.randrange(7)
        if kind < 2:
            content[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 2 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            word = rng.choice(WORDS) * rng.choice((1, 2))
            content[at : at + len(word)] = word
        elif kind == 4:
            end = at + rng.randrange(1, 64)
            content[at:at] = content[at:end]
        elif kind == 5:
            del content[at : at + rng.randrange(1, 64)]
        else:
            content[at:at] = rng.randbytes(rng.randrange(1, 16))
    if rng.random() < 0.1:
        del content[rng.randrange(len(content) or 1) :]
    return bytes(content)


def json_of(content, rng):
    """Replace, remove or repeat members, or nest one deeply."""
    tree = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            break
        owner, key = rng.choice(places)
        kind = rng.randrange(10)
        value = owner[key]
        if kind < 6:
            owner[key] = copy.deepcopy(rng.choice(ODD))
        elif kind == 6 and isinstance(value, int | float):
            owner[key] = value * rng.choice((-1, 2, 10, 1000, 0.5))
        elif kind == 7 and isinstance(owner, dict):
            del owner[key]
        elif kind == 8:
            owner[key] = [copy.deepcopy(value) for _ in range(rng.choice((0, 2, 9)))]
        else:
            owner[key] = {"class_name": "Lambda", "config": value}
    text = json.dumps(tree)
    if rng.random() < 0.03:
        text = text.replace("null", "[" * 5000 + "]" * 5000, 1)
    if rng.random() < 0.03:
        return bytes_of(text.encode(), rng)
    return text.encode()


def _places(tree):
    keys = tree if isinstance(tree, dict) else range(len(tree))
    for key in list(keys):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def archive_of(content, rng, change):
    """Change a member, and write sound sums for it; or drop, repeat or deflate one."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    names = sorted(members)
    name = rng.choice(names)
    kind = rng.randrange(12)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = b""
    elif kind == 2:
        members[name] = bytes(1 << 27)
    elif kind == 3:
        members[name] = rng.choice((b"[]", b"{}", b"null", b"5", b'"a"'))
    else:
        members[name] = change(name, members[name], rng)
    new = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if kind in (2, 4) else zipfile.ZIP_STORED
    with zipfile.ZipFile(new, "w", packed, compresslevel=1) as target:
        for other, data in members.items():
            target.writestr(other, data)
    return new.getvalue()


def _pickled(name, data, rng):
    return opcodes_of(data, rng) if name.endswith("data.pkl") else bytes_of(data, rng)


def opcodes_of(data, rng):
    """Put opcodes and numbers into a pickle, where one begins."""
    starts = [at for _, _, at in pickletools.genops(data)]
    parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)])]
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(parts))
        kind = rng.randrange(6)
        if kind == 0:
            del parts[at]
        elif kind == 1:
            parts.insert(at, parts[rng.randrange(len(parts))])
        elif kind == 2:
            number = rng.choice((0, 1, -1, 255, 1 << 20, 1 << 31, (1 << 62)))
            parts[at] = b"\x8a\x08" + struct.pack("<q", number)
        elif kind == 3:
            parts[at] = b"r" + struct.pack("<I", rng.randrange(1 << 32))
        elif kind == 4:
            parts.insert(
                at, rng.choice((b"(", b"0", b"1", b"2", b"}", b"]", b"R", b"b"))
            )
        else:
            parts[at] = bytes_of(parts[at], rng) or b"N"
        if not parts:
            break
    return b"".join(parts)


def _keras(name, data, rng):
    if name.endswith(".json") and rng.random() < 0.9:
        return json_of(data, rng)
    return bytes_of(data, rng)


def _npy(name, data, rng):
    if rng.random() < 0.5:
        return bytes_of(data[:128], rng) + data[128:]
    return bytes_of(data, rng)


def zip_pth(path, rng):
    content = (REFERENCE / f"{STATE}.pth").read_bytes()
    _write(path, content, rng, lambda c, r: archive_of(c, r, _pickled))


def legacy_pth(path, rng):
    _write(path, legacy(), rng, _in_the_head)


def npz(path, rng):
    content = (REFERENCE / f"{STATE}.npz").read_bytes()
    _write(path, content, rng, lambda c, r: archive_of(c, r, _npy))


def safetensors(path, rng):
    def head(content, rng):
        (length,) = struct.unpack("<Q", content[:8])
        header = json_of(content[8 : 8 + length], rng)
        size = len(header) if rng.random() < 0.9 else rng.randrange(1 << 63)
        return struct.pack("<Q", size) + header + content[8 + length :]

    _write(path, as_safetensors(state()), rng, head)


def hdf5(path, rng):
    def crafted(content, rng):
        file = io.BytesIO()
        with h5py.File(file, "w") as target:
            for name, array in state().items():
                odd = rng.random() < 0.1
                shape = [n * rng.choice((1, 1000, 100_000)) for n in array.shape]
                chunks = tuple(min(n, 64) for n in shape) if odd and shape else None
                packed = rng.choice((None, "gzip", "lzf")) if chunks else None
                if odd and chunks:
                    shape = tuple(min(n, 1 << 30) for n in shape)
                    target.create_dataset(
                        name, shape, array.dtype, chunks=chunks, compression=packed
                    )
                else:
                    target[name] = array
        return file.getvalue()

    file = io.BytesIO()
    with h5py.File(file, "w") as target:
        for name, array in state().items():
            target[name] = array
    _write(path, file.getvalue(), rng, crafted)


def keras_weights(path, rng):
    with zipfile.ZipFile(run_folder() / "trained.keras") as members:
        content = members.read("model.weights.h5")

    def crafted(content, rng):
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as target:
            names = []
            target.visit(names.append)
            names = [n for n in names if isinstance(target[n], h5py.Dataset)]
            for name in rng.sample(names, 2):
                shape = [n * 100_000 for n in target[name].shape]
                del target[name]
                kind = rng.randrange(3)
                if kind == 0:
                    chunks = tuple(min(n, 64) for n in shape)
                    target.create_dataset(name, shape, "f4", chunks=chunks)
                elif kind == 1:
                    target[name] = h5py.SoftLink("/")
                else:
                    target.create_group(name)
        return file.getvalue()

    _write(path, content, rng, crafted)


def keras(path, rng):
    content = (run_folder() / "trained.keras").read_bytes()
    _write(path, content, rng, lambda c, r: archive_of(c, r, _keras))


def tflite(path, rng):
    path.write_bytes(bytes_of((run_folder() / "model.tflite").read_bytes(), rng))


def saved_model(path, rng):
    shutil.copytree(run_folder(), path, ignore=_not_of_saved_models)
    files = ["saved_model.pb"] * 3
    files += ["variables/variables.index", "variables/variables.data-00000-of-00001"]
    files += ["fingerprint.pb", "assets.extra/class_names.txt"]
    file = path / rng.choice(files)
    if rng.random() < 0.05:
        file.unlink()
    else:
        file.write_bytes(bytes_of(file.read_bytes(), rng))


def _not_of_saved_models(_, names):
    return [n for n in names if n.endswith((".keras", ".tflite", ".csv"))]


def origin(path, rng):
    """An artifact of one of three forms that is sound, but for what it says."""
    kind = rng.randrange(3)
    if kind == 0:
        path = path.with_suffix(".keras")
        with (
            zipfile.ZipFile(run_folder() / "trained.keras") as old,
            zipfile.ZipFile(path, "w") as new,
        ):
            for name in old.namelist():
                data = old.read(name)
                new.writestr(
                    name, json_of(data, rng) if name == "origin.json" else data
                )
    elif kind == 1:
        shutil.copytree(run_folder(), path, ignore=_not_of_saved_models)
        file = path / "assets.extra" / "origin.json"
        if rng.random() < 0.3:
            file = path / rng.choice(("recipe.json", "report.json"))
        file.write_bytes(json_of(file.read_bytes(), rng))
    else:
        from kmlp.artifacts import flatbuffer

        path = path.with_suffix(".tflite")
        content = (run_folder() / "model.tflite").read_bytes()
        text = json_of(flatbuffer.metadata(content, "kmlp_origin"), rng)
        path.write_bytes(flatbuffer.with_metadata(content, "kmlp_origin", text))
    return path


def _write(path, content, rng, crafted):
    content = (crafted if rng.random() < 0.7 else bytes_of)(content, rng)
    path.write_bytes(content)


def _in_the_head(content, rng):
    return bytes_of(content[:2000], rng) + content[2000:]


def state():
    with np.load(REFERENCE / f"{STATE}.npz") as arrays:
        return {
            name.removeprefix("state/"): arrays[name]
            for name in arrays.files
            if name.startswith("state/")
        }


def as_safetensors(arrays):
    header, data = {}, b""
    for name, array in arrays.items():
        raw = array.tobytes()
        dtype = {"f": "F32", "i": "I64"}[array.dtype.kind]
        ends = [len(data), len(data) + len(raw)]
        shape = list(array.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": ends}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def legacy():
    """A state in PyTorch's form before 1.6, written without PyTorch."""
    parts = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})]
    arrays = {name: np.ascontiguousarray(a) for name, a in state().items()}
    pickled = [b"\x80\x02}"]
    for key, (name, array) in enumerate(arrays.items()):
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        steps = [s // array.itemsize for s in array.strides]
        pickled += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{kind}\n".encode(),
            _text(str(key)) + _text("cpu") + _int(array.size) + b"NtQ" + _int(0),
            b"(" + b"".join(map(_int, array.shape)) + b"t",
            b"(" + b"".join(map(_int, steps)) + b"t",
            b"\x89}tRs",
        ]
    parts.append(b"".join(pickled) + b".")
    parts.append(pickle.dumps([str(n) for n in range(len(arrays))], 2))
    for array in arrays.values():
        parts.append(struct.pack("<q", array.size) + array.tobytes())
    return b"".join(parts)


def _text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _int(value):
    return b"\x8a\x08" + struct.pack("<q", value)


# Form -> function of a path and a source of chance, and the ending of its files.
FORMS = {
    "zip": (zip_pth, ".pth"),
    "legacy": (legacy_pth, ".pth"),
    "npz": (npz, ".npz"),
    "safetensors": (safetensors, ".safetensors"),
    "hdf5": (hdf5, ".h5"),
    "weights": (keras_weights, ".weights.h5"),
    "keras": (keras, ".keras"),
    "tflite": (tflite, ".tflite"),
    "SavedModel": (saved_model, ""),
    "origin": (origin, ""),
}


def make(form, seed, folder):
    """Return the path of a file or folder that a seed stands for."""
    write, suffix = FORMS[form]
    path = Path(folder) / f"{form}{seed}{suffix}"
    return write(path, random.Random(f"{form} {seed}")) or path
