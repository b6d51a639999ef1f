"""Linear layers by kind, and how sparse they are."""

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.analysis.linear import linear_layers
from kmlp.analysis.sparsity import COLUMNS, gzip_bytes, sparsity

# Case -> {kind: number of layers}.
LAYERS = {
    "repmlpnet": {
        "patch embedding": 3,
        "patch mixing": 4,
        "channel": 8,
        "gate": 8,
        "head": 1,
    },
    "resmlp": {"patch embedding": 1, "patch mixing": 2, "channel": 4, "head": 1},
    "smlpnet": {"patch embedding": 2, "patch mixing": 6, "channel": 9, "head": 1},
    "convmlp": {"convolution": 9, "channel": 16, "head": 1},
}


@pytest.mark.parametrize("form", ["train form", "merged"])
@pytest.mark.parametrize("case", LAYERS)
def test_every_linear_layer_has_its_kind(case, form):
    model = cases.build(case)
    found = linear_layers(kmlp.merge(model) if form == "merged" else model)
    kinds = [linear.kind for linear in found]
    assert {kind: kinds.count(kind) for kind in kinds} == LAYERS[case]
    assert len({linear.name for linear in found}) == len(found)


# Layer -> its inputs' shape and the axis of these that its kernel sums over.
SUMMED = {
    "dense": (keras.layers.Dense(5), (1, 6), 1),
    "convolution": (keras.layers.Conv2D(5, 3), (1, 4, 4, 6), 3),
    "patch mixing": (kmlp.layers.SetSharingLinear(2), (1, 3, 1, 4), 1),
}


@pytest.mark.parametrize("name", SUMMED)
def test_the_input_axis_is_the_one_that_is_summed(name):
    layer, shape, axis = SUMMED[name]
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    (linear,) = linear_layers(model)
    kernel = np.array(keras.ops.convert_to_numpy(linear.kernel))
    np.moveaxis(kernel, linear.input_axis, 0)[1] = 0
    linear.kernel.assign(kernel)
    for index, unseen in ((1, True), (2, False)):
        changed = images.copy()
        np.moveaxis(changed, axis, 0)[index] += 1
        same = np.array_equal(cases.run(model, changed), cases.run(model, images))
        assert same == unseen


def test_shares_are_counted_by_hand():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, name="dense")])
    kernel = np.ones((4, 5), "float32")
    kernel[0] = [0, 0.04, -0.049, 0.051, -0.009]
    model.layers[0].kernel.assign(kernel)
    (row,) = sparsity(model).layers
    assert (row.name, row.kind, row.size) == ("dense", "channel", 20)
    assert row.small == 4 / 20
    assert row.zero == 1 / 20
    assert sparsity(model, 0.01).layers[0].small == 2 / 20
    model.layers[0].kernel.assign(kernel * -3)  # magnitudes, relative to the largest
    assert sparsity(model).layers[0].small == 4 / 20


def test_local_branches_count_in_the_kernel_they_merge_into():
    model = cases.build("resmlp_local")
    trained = {row.name: row for row in sparsity(model).layers}
    merged = {row.name: row for row in sparsity(kmlp.merge(model)).layers}
    raw = np.abs(model.get_layer("block0_cross_patch").mix.kernel.numpy())
    name = "block0_cross_patch/mix"
    assert trained[name] == merged[name]
    assert trained[name].small != (raw < 0.05 * raw.max()).mean()


def test_totals_weigh_layers_by_their_size():
    table = sparsity(cases.build("resmlp"))
    mixing = [row for row in table.layers if row.kind == "patch mixing"]
    total = table.by_kind()["patch mixing"]
    assert total.size == sum(row.size for row in mixing)
    expected = sum(row.small * row.size for row in mixing) / total.size
    assert total.small == pytest.approx(expected, abs=1e-12)
    assert "block1_cross_channel/fc2" in str(table)


# Case -> (layer, part of an MLP, depth) of each of its linear layers.
PLACES = {
    "resmlp": [
        ("patch_embed/dense", "", 0.5),
        ("block0_cross_patch/mix", "", 1),
        ("block0_cross_channel/fc1", "expansion", 1),
        ("block0_cross_channel/fc2", "projection", 1),
        ("block1_cross_patch/mix", "", 2),
        ("block1_cross_channel/fc1", "expansion", 2),
        ("block1_cross_channel/fc2", "projection", 2),
        ("head/dense", "", 2.5),
    ],
    "resmlp_mixer": [
        ("patch_embed/dense", "", 0.5),
        ("block0_cross_patch/fc1", "expansion", 1),
        ("block0_cross_patch/fc2", "projection", 1),
        ("block0_cross_channel/fc1", "expansion", 1),
        ("block0_cross_channel/fc2", "projection", 1),
        ("head/dense", "", 1.5),
    ],
    "repmlpnet_partitioned": [
        ("stem/dense", "", 0.5),
        ("stage0_block0_channel_perceptron", "", 1),
        ("stage0_block0_global_perceptron/fc1", "", 1),
        ("stage0_block0_global_perceptron/fc2", "", 1),
        ("stage0_block0_ffn/fc1", "expansion", 1),
        ("stage0_block0_ffn/fc2", "projection", 1),
        ("embed0/dense", "", 1.5),
        ("stage1_block0_channel_perceptron", "", 2),
        ("stage1_block0_global_perceptron/fc1", "", 2),
        ("stage1_block0_global_perceptron/fc2", "", 2),
        ("stage1_block0_ffn/fc1", "expansion", 2),
        ("stage1_block0_ffn/fc2", "projection", 2),
        ("head/dense", "", 2.5),
    ],
}


@pytest.mark.parametrize("form", ["train form", "merged"])
@pytest.mark.parametrize("case", PLACES)
def test_every_linear_layer_has_its_place(case, form):
    model = cases.build(case)
    found = linear_layers(kmlp.merge(model) if form == "merged" else model)
    assert [(layer.name, layer.part, layer.depth) for layer in found] == PLACES[case]


def test_layers_without_blocks_are_counted():
    layers = [keras.layers.Dense(2, name=name) for name in ("first", "second")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    assert [layer.depth for layer in linear_layers(model)] == [1, 2]


def test_layers_of_a_kind_in_a_block_count_as_one():
    table = sparsity(cases.build("smlpnet"))
    lines = table.by_depth()
    assert list(lines) == [
        *("patch mixing", "channel", "channel, expansion", "channel, projection"),
        *("patch embedding", "head"),
    ]
    assert [row.depth for row in lines["patch mixing"]] == [1, 2, 3]
    assert [row.depth for row in lines["patch embedding"]] == [0.5, 1.5]
    width, height = (
        row for row in table.layers if (row.kind, row.depth) == ("patch mixing", 1)
    )
    assert width.size != height.size
    small = width.small * width.size + height.small * height.size
    together = lines["patch mixing"][0]
    assert together.size == width.size + height.size
    assert together.small == pytest.approx(small / together.size, abs=1e-12)


def test_rows_hold_what_the_columns_say():
    table = sparsity(cases.build("resmlp"), 0.01)
    row = dict(zip(COLUMNS, table.rows()[2], strict=True))
    (layer,) = (r for r in table.layers if r.name == "block0_cross_channel/fc1")
    assert row == {
        "depth": "1",
        "layer": "block0_cross_channel/fc1",
        "kind": "channel",
        "part": "expansion",
        "weights": 16 * 64,
        "threshold": 0.01,
        "below": layer.small,
        "zero": 0.0,
    }


def test_a_layer_of_zeros_is_sparse():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    model.layers[0].kernel.assign(np.zeros((4, 5)))
    (row,) = sparsity(model).layers
    assert (row.small, row.zero) == (1.0, 1.0)


def test_what_has_nothing_to_measure_is_named():
    with pytest.raises(ValueError, match="threshold=0"):
        sparsity(cases.build("resmlp"), 0)
    with pytest.raises(ValueError, match=r"build\(\) it first"):
        sparsity(keras.Sequential([keras.layers.Dense(2)], name="unbuilt"))
    with pytest.raises(ValueError, match="no linear layer"):
        sparsity(keras.Sequential([keras.Input((2,)), keras.layers.ReLU()]))


def test_zeros_make_a_file_smaller_when_it_is_compressed(tmp_path):
    values = np.random.default_rng(0).normal(size=10_000).astype("float32")
    (tmp_path / "dense").write_bytes(values.tobytes())
    values[np.abs(values) < 1.0] = 0.0
    (tmp_path / "sparse").write_bytes(values.tobytes())
    dense, sparse = (gzip_bytes(tmp_path / name) for name in ("dense", "sparse"))
    assert dense > 0.9 * values.nbytes
    assert sparse < 0.5 * values.nbytes
