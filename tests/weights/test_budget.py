"""A file costs what it is worth: small ones that declare gigabytes, or years."""

import contextlib
import io
import json
import pickle
import resource
import struct
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from kmlp.weights.checkpoint_forms import read_state

REFERENCE = Path(__file__).parents[1] / "reference"
GIGABYTE = 1 << 30
ONE = np.ones(1, "<f4").tobytes()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(size, stride, key="0", count=1):
    """The pickle of a tensor over a storage of float32."""
    numbers = [b"".join(map(integer, part)) for part in (size, stride)]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        b"ctorch\nFloatStorage\n"
        + text(key)
        + text("cpu")
        + integer(count)
        + b"tQK\x00("
        + numbers[0]
        + b"t("
        + numbers[1]
        + b"tK\x00}tR"
    )


def integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


SMALL = text("a") + tensor((1,), (1,)) + b"s"


def zipped(path, pickled, storage=ONE, method=0):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("a/data/0", storage)


def legacy(path, pickled):
    path.write_bytes(b"\x80\x02" + pickled + b".")


def zeros(path, name, size=1 << 27):
    """Write a member of zeros without having them in memory."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w", force_zip64=True) as member,
    ):
        if name.endswith(".npy"):
            shape = {"shape": (size // 4,), "fortran_order": False, "descr": "<f4"}
            np.lib.format.write_array_header_1_0(member, shape)
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))


def npy_header(path):
    file = io.BytesIO()
    header = {"shape": (1 << 32,), "fortran_order": False, "descr": "<f4"}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", file.getvalue() + bytes(64))


def hdf5(path, shape=(1,), chunks=None, raw=None, **options):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("a", shape, "f4", chunks=chunks, **options)
        if raw is not None:
            data.id.write_direct_chunk((0,) * len(shape), raw)


def unallocated(path):
    hdf5(path, (50_000, 50_000), (1000, 1000))


def large_chunk(path):
    hdf5(path, (4,), (1 << 29,), maxshape=(None,), compression="gzip")


def inflating_chunk(path):
    raw = zlib.compress(bytes(1 << 28), 1)
    hdf5(path, (1 << 14,), (1 << 14,), raw, compression="gzip")


def safetensors(path, header, length=None, data=bytes(4)):
    header = json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + data)


def entry(end, shape):
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


def powers(pair, times=60):
    """A value of 2**times parts, each a reference to the same."""
    return pair + b"".join(b"q\x000h\x00h\x00\x86" for _ in range(times))


NESTED = b")" + b"\x85" * 200_000
ORDERED = b"ccollections\nOrderedDict\nq\x01"
PAIRS = b"(" + b"\x8c\x01aN\x86" * 100_000 + b"lq\x00"

# What is refused, and what the line says; files are told by their beginning.
REFUSED = {
    "PUT": (lambda p: legacy(p, b"}r\xff\xff\xff\x7f"), "puts at 2,147,483,647"),
    "text PUT": (lambda p: legacy(p, b"}p9999999999\n"), "puts at 9,999,999,999"),
    "length of text": (
        lambda p: legacy(p, b"\x8d" + struct.pack("<Q", 1 << 40)),
        "remain",
    ),
    "length of bytes": (
        lambda p: legacy(p, b"\x8e" + struct.pack("<Q", 1 << 40)),
        "remain",
    ),
    "length of an array": (
        lambda p: legacy(p, b"\x96" + struct.pack("<Q", 1 << 33) + bytes(8)),
        "damaged",
    ),
    "length of a number": (
        lambda p: legacy(p, b"\x8b" + struct.pack("<i", (1 << 31) - 1)),
        "not enough data",
    ),
    "steps": (
        lambda p: zipped(p, b"N0" * (1 << 20), method=zipfile.ZIP_DEFLATED),
        r"more than 1,\d+,\d+ steps",
    ),
    "arguments": (
        lambda p: zipped(p, PAIRS + ORDERED + b"h\x01h\x00\x85R0" * 100_000),
        r"more than 1,\d+,\d+ arguments",
    ),
    "stride of zero": (
        lambda p: zipped(p, b"}" + text("a") + tensor((1 << 30,), (0,)) + b"s"),
        r"declares 4\.\d GB \(with the tensor 'a'\) and holds \d+ bytes",
    ),
    "one storage for many": (
        lambda p: zipped(
            p,
            b"}"
            + b"".join(
                text(str(n)) + tensor((1 << 20,), (1,), count=1 << 20) + b"s"
                for n in range(200)
            ),
            bytes(1 << 22),
            zipfile.ZIP_DEFLATED,
        ),
        r"declares \d+\.\d MB \(with the tensor '\d+'\)",
    ),
    "zeros of a storage": (lambda p: zeros(p, "a/data.pkl"), "declares 134.2 MB"),
    "zeros of an array": (lambda p: zeros(p, "a.npy"), "declares 134.2 MB"),
    "zeros of a .keras": (lambda p: zeros(p, "model.weights.h5"), "declares 134.2 MB"),
    "another compression": (
        lambda p: zipped(p, b"}" + SMALL, method=zipfile.ZIP_BZIP2),
        "compressed as no checkpoint is",
    ),
    "a header of .npy": (npy_header, "declares 4,294,967,296 numbers and holds 64"),
    "chunks that are not there": (unallocated, r"declares 10\.0 GB .*holds 1\.\d kB"),
    "a chunk larger than its data": (large_chunk, r"declares 2\.1 GB"),
    "a chunk that inflates": (inflating_chunk, "holds more than it may"),
    "a header of .safetensors": (
        lambda p: safetensors(p, {}, (1 << 63) - 1),
        "damaged",
    ),
    "offsets of .safetensors": (
        lambda p: safetensors(p, entry(1 << 40, [1 << 38])),
        "damaged",
    ),
    "a shape of .safetensors": (
        lambda p: safetensors(p, entry(4, [1 << 38])),
        "damaged",
    ),
    "mappings in one another": (
        lambda p: zipped(
            p,
            b"}q\x00}q\x01"
            + b"".join(b"h\x00" + text(f"{n}") + b"h\x01s0" for n in range(200))
            + b"".join(text(f"{n}") + b"h\x00s" for n in range(200))
            + b"0h\x00",
        ),
        "mappings in one another|mapping of names to tensors",
    ),
    "a long name": (
        lambda p: zipped(p, b"}" + text("a" * 10_000) + SMALL[6:]),
        "at most 500 characters",
    ),
}
# What is as good as any other file: its only tensor is read.
READ = {
    "a dictionary that holds itself": b"}q\x00"
    + b"".join(text(f"name{n}") + b"h\x00s" for n in range(3000))
    + SMALL,
    "a key of many parts": b"}" + powers(b")") + b"Ns" + SMALL,
    "a key that is nested": b"}" + NESTED + b"Ns" + SMALL,
    "a name of many parts": b"}" + text("b") + powers(b")") * 2 + b"\x93s" + SMALL,
    "a set of many parts": b"}"
    + text("b")
    + b"\x8f("
    + powers(b")")
    + b"\x90s"
    + SMALL,
    "a class of its own": b"}"
    + text("b")
    + b"cos\nsystem\n(X\x00\x00\x00\x00tRs"
    + SMALL,
}


@contextlib.contextmanager
def cheap():
    """Let this process have another gigabyte and no more, for some seconds."""
    (pages,) = Path("/proc/self/statm").read_text().split()[:1]
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int(pages) * resource.getpagesize() + GIGABYTE
    started = time.perf_counter()
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize("case", REFUSED)
def test_what_declares_too_much_is_refused_in_one_line(case, tmp_path):
    write, words = REFUSED[case]
    path = tmp_path / "strange.pth"
    write(path)
    with cheap(), pytest.raises(ValueError, match=words) as raised:
        read_state(path)
    message = str(raised.value)
    assert "strange.pth" in message
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("case", READ)
def test_what_means_nothing_costs_nothing(case, tmp_path):
    path = tmp_path / "strange.pth"
    zipped(path, READ[case])
    with cheap():
        state = read_state(path)
    assert {name: array.tolist() for name, array in state.items()} == {"a": [1.0]}


def test_the_reader_takes_what_pickle_takes():
    """Every opcode that PyTorch's protocols write gives what `pickle` gives."""
    from kmlp.weights.torch_pickle import _Pickle

    value = {
        "numbers": [0, -1, 255, 65535, 1 << 31, -(1 << 70), 1.5, True, False, None],
        "text": ["", "ä", "a" * 300, b"bytes", b"b" * 300],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "nested": {"a": {"b": [{"c": ()}]}},
    }
    value["again"] = value["nested"]
    for protocol in range(5):
        pickled = pickle.dumps(value, protocol)
        found = _Pickle(io.BytesIO(pickled), 0).tree
        if protocol < 3:  # bytes are made by a call
            found["text"][3:] = value["text"][3:]
        assert found == value
        assert found["again"] is found["nested"]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        # A patch embedding of a million channels, and blocks of another number.
        ({"patch_embed.proj.weight": (1 << 20, 3, 1, 1)}, "declares"),
        ({"patch_embed.proj.weight": (24, 3, 0, 0)}, "no family|no such network"),
        ({"blocks.0.mlp.fc1.weight": (1, 24)}, "seem|fit"),
    ],
)
def test_a_state_does_not_build_more_than_it_holds(shapes, words, tmp_path):
    """Names and shapes that make a network of which the arrays are a small part."""
    kmlp = pytest.importorskip("kmlp")
    with np.load(REFERENCE / "resmlp_small.npz") as arrays:
        state = {n: arrays[n] for n in arrays.files if n.startswith("state/")}
    for name, shape in shapes.items():
        assert f"state/{name}" in state
        state[f"state/{name}"] = np.zeros(shape, "float16")
    np.savez(tmp_path / "a.npz", **state)
    with cheap(), pytest.raises(ValueError, match=words) as raised:
        kmlp.create_model(weights=tmp_path / "a.npz")
    assert "Received: " in str(raised.value)
