"""Checkpoints and curves that a disk has damaged: read bit for bit, or set aside."""

import dataclasses
import json
import random
import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kmlp.errors import RunError
from kmlp.training.checkpoints import Checkpoint, Checkpoints
from kmlp.training.publishing import _models

QUICK = 60  # mutations that every run of the tests tries
ALL = 900
NAMES = ("stem/kernel", "stem/bias", "norm/gamma", "norm/moving_mean", "head/kernel")
NEWEST = "step-0000000002.npz"


def checkpoint(step):
    """The state of a small network, its optimizer and its averages."""
    draw = np.random.default_rng(step)
    arrays = {"step": np.array(step, "int64"), "loss_scale": np.float32(2**15)}
    for name in NAMES:
        shape = (4, 4, 3, 8) if "kernel" in name else (8,)
        for role in ("model", "optimizer/momentum", "ema"):
            arrays[f"{role}/{name}"] = draw.normal(size=shape).astype("float32")
    progress = {
        "history": [{"epoch": 1, "step": step, "loss": 0.1 + step}],
        "sums": {"loss": 1 / 3, "steps": step},
        "best": 0.5,
        "seconds": 1.25,
    }
    curve = {
        "step": np.arange(1, step + 1),
        "loss": draw.normal(size=step),
    }
    return Checkpoint(step, arrays, progress, curve)


def written(folder):
    """The newest of two checkpoints in a folder, as bytes."""
    for step in (1, 2):
        Checkpoints(folder).save(checkpoint(step))
    return (folder / NEWEST).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return written(folder), (folder / "step-0000000001.npz").read_bytes()


def same(found, expected):
    """Whether two checkpoints are alike bit for bit."""
    for one, other in (
        (found.arrays, expected.arrays),
        (found.curve, expected.curve),
    ):
        if one.keys() != other.keys():
            return False
        for name, array in one.items():
            array, whole = np.asarray(array), np.asarray(other[name])
            if (array.shape, array.dtype) != (whole.shape, whole.dtype):
                return False
            if array.tobytes() != whole.tobytes():
                return False
    return (found.step, found.progress) == (expected.step, expected.progress)


# Mutations: a function of the bytes, a generator of numbers and a path to work at.


def flipped(raw, draw, path):
    index = draw.randrange(len(raw))
    raw[index] ^= 1 << draw.randrange(8)
    return raw


def in_directory(raw, draw, path):
    """A byte of the central directory, or of its end, is another."""
    index = draw.randrange(raw.find(b"PK\x01\x02"), len(raw))
    raw[index] = draw.randrange(256)
    return raw


def bit_in_directory(raw, draw, path):
    index = draw.randrange(raw.find(b"PK\x01\x02"), len(raw))
    raw[index] ^= 1 << draw.randrange(8)
    return raw


def truncated(raw, draw, path):
    return raw[: draw.randrange(len(raw))]


def zeroed(raw, draw, path):
    """Sectors that were never written."""
    begin = draw.randrange(len(raw)) // 512 * 512
    end = min(len(raw), begin + 512 * draw.randrange(1, 5))
    raw[begin:end] = bytes(end - begin)
    return raw


def grown(raw, draw, path):
    where = draw.choice([0, len(raw), draw.randrange(len(raw))])
    return raw[:where] + draw.randbytes(draw.randrange(1, 99)) + raw[where:]


def members(raw, path):
    path.write_bytes(raw)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(contents, path):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path.read_bytes()


def removed(raw, draw, path):
    """A sound zip file that lacks members."""
    contents = members(raw, path)
    for name in draw.sample([*contents], draw.randrange(1, 3)):
        del contents[name]
    return packed(contents, path)


def renamed(raw, draw, path):
    contents = members(raw, path)
    name = draw.choice([*contents])
    contents[draw.choice(["other.npy", "progress.npy", "other"])] = contents.pop(name)
    return packed(contents, path)


def swapped(raw, draw, path):
    contents = members(raw, path)
    one, other = draw.sample([*contents], 2)
    contents[one], contents[other] = contents[other], contents[one]
    return packed(contents, path)


def rewritten(raw, draw, path):
    """A bit of a member is another, and the zip file's checksum is right."""
    contents = members(raw, path)
    name = draw.choice([*contents])
    contents[name] = flipped(bytearray(contents[name]), draw, path)
    return packed(contents, path)


MUTATIONS = (
    *(flipped, in_directory, bit_in_directory, truncated, zeroed, grown),
    *(removed, renamed, swapped, rewritten),
)


def known_directory(raw, draw, path):
    """What ended runs for good: a method of compression that there is not."""
    raw[raw.find(b"PK\x01\x02") + 10] ^= 64
    return raw


def check(mutate, seed, folder, whole, capsys):
    """Read a mutated checkpoint and return whether it was set aside."""
    newest, before = whole
    raw = mutate(bytearray(newest), random.Random(seed), folder / "work.zip")
    (folder / NEWEST).write_bytes(raw)
    (folder / "step-0000000001.npz").write_bytes(before)
    found = Checkpoints(folder).latest()
    told = capsys.readouterr().err.splitlines()
    aside = folder / NEWEST.replace(".npz", ".damaged")
    if found.step == 2:
        assert same(found, checkpoint(2)), (mutate.__name__, seed)
        assert not told
        return False
    assert same(found, checkpoint(1)), (mutate.__name__, seed)
    assert aside.read_bytes() == bytes(raw)
    assert len(told) == 1, told
    assert f"{NEWEST} is damaged" in told[0]
    aside.unlink()
    return True


@pytest.mark.parametrize(
    "seeds",
    [range(QUICK), pytest.param(range(QUICK, ALL), marks=pytest.mark.long)],
    ids=len,
)
def test_a_mutated_checkpoint_is_read_bit_for_bit_or_set_aside(
    seeds, tmp_path, whole, capsys
):
    aside = {mutate: 0 for mutate in MUTATIONS}
    for seed in seeds:
        mutate = MUTATIONS[seed % len(MUTATIONS)]
        aside[mutate] += check(mutate, seed, tmp_path, whole, capsys)
    # Neither of the two is the only thing that ever happens.
    assert aside[truncated] == aside[removed] == len(seeds) // len(MUTATIONS)
    assert sum(aside.values()) < len(seeds)


def test_what_ended_runs_for_good_sets_it_aside(tmp_path, whole, capsys):
    assert check(known_directory, 0, tmp_path, whole, capsys)


@pytest.mark.parametrize("error", [MemoryError, RecursionError, NotImplementedError])
def test_whatever_reading_raises_sets_it_aside(
    error, tmp_path, whole, capsys, monkeypatch
):
    load = np.load

    def fail(path, **options):
        if path.name == NEWEST:
            raise error
        return load(path, **options)

    monkeypatch.setattr(np, "load", fail)
    assert check(lambda raw, *_: raw, 0, tmp_path, whole, capsys)


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path):
    expected = checkpoint(2)
    text = json.dumps(expected.progress).encode()
    np.savez(
        tmp_path / NEWEST,
        **expected.arrays | {"progress": np.frombuffer(text, np.uint8)},
    )
    found = Checkpoints(tmp_path).latest()
    assert found.curve is None  # it holds none
    assert same(dataclasses.replace(found, curve=expected.curve), expected)


def ending(publish):
    """A run of a tiny network whose last weights are ones."""

    def network(precision):
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])

    model = network("float32")
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    return SimpleNamespace(
        engine=SimpleNamespace(model=model),
        averaged=False,
        network=network,
        options=SimpleNamespace(publish=publish),
    )


@pytest.mark.parametrize("damage", [None, b"", b"\x89HDF\r\n\x1a\n" + bytes(4000)])
def test_damaged_best_weights_hold_up_nothing_else(damage, tmp_path, capsys):
    path = tmp_path / "best.weights.h5"
    if damage is not None:
        path.write_bytes(damage)
    trained, best = _models(ending("last"), tmp_path)
    assert all((weight == 1).all() for weight in trained.get_weights())
    assert best is None
    told = capsys.readouterr().err
    assert told.startswith("The best weights cannot be read (")
    assert told.endswith("): best.keras is left out.\n")
    with pytest.raises(RunError, match=r"pass --publish last.*Received: .*best"):
        _models(ending("best"), tmp_path)
