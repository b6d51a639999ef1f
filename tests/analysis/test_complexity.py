"""Profiles: totals, nesting, sizes that are not known."""

import keras
import pytest
from cases import CASES, build, spread

import kmlp
from kmlp.analysis.complexity import shapes_only


@pytest.mark.parametrize("case", CASES)
def test_rows_sum_to_the_totals(case):
    model = build(case)
    profile = kmlp.profile(model)
    assert profile.trainable + profile.non_trainable == model.count_params()
    for column in ("trainable", "non_trainable", "macs"):
        total = sum(getattr(row, column) for row in profile.layers)
        assert total == getattr(profile, column) >= 0
    assert f"{profile.macs:,}" in str(profile)


@pytest.mark.parametrize("case", spread(CASES))
def test_merging_never_costs_more(case):
    model = build(case)
    merged = kmlp.profile(kmlp.merge(model))
    assert 0 < merged.macs <= kmlp.profile(model).macs
    assert merged.non_trainable == 0


def test_merged_repmlpnet_equals_the_published_deploy_form():
    """Its multiply-adds are those of the train form less the local branches."""
    arguments = {"depths": (1, 1), "widths": (8, 16), "share_sets": (1, 4)}
    model = kmlp.RepMLPNet(10, (32, 32, 3), **arguments)
    branches = 8 * 8 * 8 * (1 + 9) + 4 * 4 * 16 * (1 + 9)
    difference = kmlp.profile(model).macs - kmlp.profile(kmlp.merge(model)).macs
    assert difference == branches


def test_a_dense_layer_counts_once_per_position():
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.Dense(5)(inputs)
    x = keras.layers.Conv2D(7, 3, strides=2, padding="same")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    expected = 24 * 15 + 6 * 9 * 5 * 7 + 6 * 9 * 7
    assert kmlp.profile(keras.Model(inputs, x)).macs == expected


def test_shared_and_nested_layers():
    dense = keras.layers.Dense(4)
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)], name="inner")
    inputs = keras.Input((4,))
    profile = kmlp.profile(keras.Model(inputs, inner(dense(dense(inputs)))))
    assert profile.trainable == 40
    assert profile.macs == 48
    assert [row.name for row in profile.layers][-1].startswith("inner/")


def test_unknown_sizes_are_asked_for():
    anysize = kmlp.create_model("convmlp_s", 10, (None, None, 3))
    with pytest.raises(ValueError, match=r"input_shape=.*Received"):
        kmlp.profile(anysize)
    fixed = kmlp.profile(kmlp.create_model("convmlp_s", 10, (64, 96, 3)))
    assert kmlp.profile(anysize, (64, 96, 3)) == fixed


def test_a_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"graph.*Received"):
        kmlp.profile(Subclassed())


@pytest.mark.parametrize("case", spread(CASES))
def test_stages_hold_every_layer_once(case):
    model = build(case)
    for form in (model, kmlp.merge(model)):
        profile = kmlp.profile(form)
        for column in ("trainable", "non_trainable", "macs", "activations"):
            total = sum(getattr(row, column) for row in profile.stages)
            assert total == getattr(profile, column)
        peak = profile.peak_activation_bytes
        assert peak == max(row.memory for row in profile.stages) > 0
        assert peak == max(row.memory for row in profile.layers)
        names = [row.name for row in profile.stages]
        assert names[0].startswith("stem")
        assert names[-1] == "head"
        maps = {k: tuple(v.shape) for k, v in model.pyramid_outputs.items()}
        shapes = {row.name: row.output_shape for row in profile.stages}
        assert {k: maps[k] for k in shapes if k in maps}.items() <= shapes.items()
        missing = set(maps) - set(names)
        assert all(names[0] == f"stem ({level})" for level in missing)


def test_stages_of_repmlpnet():
    model = kmlp.RepMLPNet(
        10, (32, 32, 3), depths=(1, 2), widths=(8, 16), share_sets=(1, 4)
    )
    stages = kmlp.profile(model).stages
    assert [row.name for row in stages] == ["stem", "P2", "P3", "head"]
    assert stages[0].macs == 8 * 8 * 48 * 8  # patches of 4x4x3 to 8 channels
    assert stages[3].macs == 16 * 10


def test_a_model_without_a_pyramid_is_one_stage():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="small")
    (stage,) = kmlp.profile(model).stages
    assert (stage.name, stage.macs, stage.output_shape) == ("small", 8, (None, 2))


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2"])
def test_a_batch_is_a_number_of_images(batch):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match=r"batch. must be a positive integer.*Received"
    ):
        kmlp.profile(model, batch=batch)


@pytest.mark.parametrize("name", ["convmlp_s", "repmlpnet_cifar"])
def test_merging_by_shapes_alone_counts_the_same(name):
    arguments = {} if name == "repmlpnet_cifar" else {"input_shape": (64, 64, 3)}
    with shapes_only():
        counted = kmlp.profile(kmlp.merge(kmlp.create_model(name, **arguments)))
    merged = kmlp.merge(kmlp.create_model(name, **arguments))
    assert kmlp.profile(merged) == counted
