"""Maps of stages, and the channels that are worth a look."""

import keras
import numpy as np
import pytest
from cases import CASES, images, randomize

from kmlp.analysis.features import stage_maps, varied_channels


def small(name, **arguments):
    keras.utils.set_random_seed(0)
    family, own = CASES[name]
    model = family(4, **{**own, **arguments})
    randomize(model)
    return model


def tapped(model, tensors, x):
    found = keras.Model(model.inputs, tensors)(x, training=False)
    return [keras.ops.convert_to_numpy(value) for value in found]


def test_the_levels_of_a_pyramid():
    model = small("convmlp")
    x = images(model, 3)
    found = stage_maps(model, x, batch_size=2)
    assert list(found) == ["P2", "P3", "P4", "P5"]
    expected = tapped(model, list(model.pyramid_outputs.values()), x)
    for own, other in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-5 * np.abs(other).max())


def test_levels_of_one_position_are_left_out():
    model = small("convmlp", input_shape=(32, 32, 3))
    found = stage_maps(model, images(model))
    assert {name: m.shape[1] for name, m in found.items()} == {
        "P2": 8,
        "P3": 4,
        "P4": 2,
    }
    # Sizes that only the images tell.
    model = small("convmlp", input_shape=(None, None, 3))
    assert list(stage_maps(model, np.ones((1, 32, 32, 3)))) == ["P2", "P3", "P4"]


def test_one_resolution_is_shown_at_four_depths():
    model = small("resmlp", depth=8)
    found = stage_maps(model, images(model))
    names = [f"block{n}_add2" for n in (1, 3, 5, 7)]
    assert list(found) == names
    outputs = [model.get_layer(name).output for name in names]
    for own, other in zip(found.values(), tapped(model, outputs, images(model))):
        np.testing.assert_allclose(own, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("sizes", [(32, 48), (None, None)])
def test_a_model_without_a_pyramid_is_cut_where_sizes_change(sizes):
    inputs = keras.Input((*sizes, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", name="a")(inputs)
    x = keras.layers.Conv2D(5, 3, padding="same", name="b")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", name="c")(x)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="gate")(x)
    x = keras.layers.Multiply(name="d")([x, gate])
    inner = keras.Model(inputs, x, name="inner")
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inner.output))
    flat = keras.Model(inputs, outputs)
    images_ = np.ones((2, 32, 48, 3))
    found = stage_maps(flat, images_)
    shapes = {name: m.shape for name, m in found.items()}
    assert shapes == {"b": (2, 16, 24, 5), "d": (2, 8, 12, 6)}
    outer = keras.Sequential(
        [keras.Input((*sizes, 3)), inner, keras.layers.GlobalAveragePooling2D()]
    )
    nested = stage_maps(outer, images_)
    assert list(nested) == ["inner/b", "inner/d"]
    for own, other in zip(nested.values(), found.values()):
        np.testing.assert_allclose(own, other, atol=1e-5 * np.abs(other).max())


def test_maps_that_were_asked_for():
    model = small("convmlp")
    found = stage_maps(model, images(model), layers=["P4", "stage0_block0_add1"])
    assert list(found) == ["P4", "stage0_block0_add1"]
    with pytest.raises(ValueError, match=r"would do.*P5.*Received: layer='P9'"):
        stage_maps(model, images(model), layers=["P9"])
    with pytest.raises(ValueError, match=r"\(N, H, W, C\).*\(45, 64, 3\)"):
        stage_maps(model, images(model)[0])


def test_a_model_without_maps():
    inputs = keras.Input((4, 4, 3))
    flat = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    with pytest.raises(ValueError, match="No layer of this model puts out a map"):
        stage_maps(keras.Model(inputs, flat), np.ones((1, 4, 4, 3)))


def test_varied_channels_are_those_of_a_pivoted_qr():
    linalg = pytest.importorskip("scipy.linalg")
    random = np.random.default_rng(0)
    maps = random.normal(size=(3, 4, 5, 7)) * (1, 9, 2, 5, 3, 0.1, 4)
    maps[..., 2] = 3 * maps[..., 1] + 0.01 * maps[..., 2]
    maps += 100 * np.arange(7)  # a level is no variation
    rows = (maps - maps.mean((1, 2), keepdims=True)).reshape(-1, 7)
    _, order = linalg.qr(rows, mode="r", pivoting=True)
    np.testing.assert_array_equal(varied_channels(maps, 5), order[:5])
    assert varied_channels(maps, 1) == [2]
    # What channel 1 shows, channel 2 has shown.
    assert 1 not in varied_channels(maps, 4)
    assert len(varied_channels(maps, 99)) == 7
    # Of equal ones the first, and none twice.
    np.testing.assert_array_equal(varied_channels(np.ones((1, 2, 2, 3)), 3), [0, 1, 2])
