"""Profiles: totals, nesting, sizes that are not known."""

import keras
import pytest
from cases import CASES, build

import kmlp


@pytest.mark.parametrize("case", CASES)
def test_rows_sum_to_the_totals(case):
    model = build(case)
    profile = kmlp.profile(model)
    assert profile.trainable + profile.non_trainable == model.count_params()
    for column in ("trainable", "non_trainable", "macs"):
        total = sum(getattr(row, column) for row in profile.layers)
        assert total == getattr(profile, column) >= 0
    assert f"{profile.macs:,}" in str(profile)


@pytest.mark.parametrize("case", CASES)
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
