"""Merging without convolutions, held against the train form and Keras' own layers."""

import itertools
import math

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.layers.convolution_free import ALL, CONVOLVING, POSITIONS, SHIFTS, SHIFTS_FC
from kmlp.merging import dense_layers

TOLERANCE = 1e-5
# Of the table, those that convolve once merged.
WITH_CONVOLUTIONS = [
    case
    for case, (family, arguments) in cases.CASES.items()
    if family in (kmlp.ConvMLP, kmlp.MSMLP, kmlp.SMLPNet, kmlp.MSMLPHybrid)
    or "conv" in arguments.get("mixing", "")
]


def convolving(model):
    return [la for la in model._flatten_layers() if isinstance(la, CONVOLVING)]


QUICK = (("convmlp", "all"), ("msmlp_mix_shift", "cheaper"), ("smlpnet_local", "all"))


@pytest.mark.parametrize(
    ("case", "dense"),
    [
        pair if pair in QUICK else cases.long(*pair)
        for pair in itertools.product(WITH_CONVOLUTIONS, ("cheaper", "all"))
    ],
)
def test_dense_forms_equal_the_trained(case, dense, tmp_path):
    model = cases.build(case)
    x = cases.images(model, 3)
    outputs = {"": model.outputs[0], **model.pyramid_outputs}
    expected = cases.run(keras.Model(model.inputs, outputs), x)
    merged = kmlp.merge(model, dense=dense)
    outputs = {"": merged.outputs[0], **merged.pyramid_outputs}
    for name, value in cases.run(keras.Model(merged.inputs, outputs), x).items():
        assert cases.relative_error(value, expected[name]) <= TOLERANCE
    assert [la.name for la in merged.layers] == [la.name for la in model.layers]
    if dense == ALL:
        assert not convolving(merged)
        assert dense_layers(merged)
    plain = kmlp.profile(kmlp.merge(model, check=False)).macs
    assert kmlp.profile(merged).macs <= plain
    again = kmlp.merge(merged, dense=dense)
    assert again.get_config() == merged.get_config()
    for a, b in zip(again.get_weights(), merged.get_weights(), strict=True):
        assert (a == b).all()
    merged.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (cases.run(loaded, x) == cases.run(merged, x)).all()
    assert dense_layers(loaded) == dense_layers(merged)


def sequential(shape, *layers):
    model = keras.Sequential([keras.Input(shape), *layers])
    for weight in model.weights:
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    return model


CONVOLUTIONS = {
    "dense": (keras.layers.Conv2D, {"filters": 4, "kernel_size": (3, 5)}),
    "one": (keras.layers.Conv2D, {"filters": 4, "kernel_size": 1, "strides": 2}),
    "even": (keras.layers.Conv2D, {"filters": 4, "kernel_size": (2, 4)}),
    "strided": (keras.layers.Conv2D, {"filters": 4, "kernel_size": 3, "strides": 2}),
    "dilated": (
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "dilation_rate": 2},
    ),
    "depthwise": (keras.layers.DepthwiseConv2D, {"kernel_size": (5, 3)}),
    "depthwise_strided": (
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "strides": 2},
    ),
}


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_any_convolution_of_keras(kind, padding):
    """On small maps, where an FC over positions is cheaper, on large and open ones."""
    make, arguments = CONVOLUTIONS[kind]
    small = (2, 3) if padding == "same" else (5, 6)
    for size in ((9, 8), small, (None, None)):
        layer = make(padding=padding, activation="relu", name="conv", **arguments)
        model = sequential((*size, 3), layer)
        known = None not in size
        shape = (2, *(size if known else (10, 8)), 3)
        x = np.random.default_rng(1).normal(size=shape).astype("float32")
        if not known and padding == "same" and layer.strides[0] > 1:
            with pytest.raises(ValueError, match=r"'same' padding.*Received: .*conv"):
                kmlp.merge(model, dense="all")
            continue
        merged = kmlp.merge(model, dense="all") if known else open_merged(model, "all")
        expected = cases.run(model, x)
        assert cases.relative_error(cases.run(merged, x), expected) <= TOLERANCE
        assert not convolving(merged)
        if known:
            assert merged.output_shape == model.output_shape


def open_merged(model, dense):
    with pytest.warns(UserWarning, match="needs known sizes"):
        return kmlp.merge(model, dense=dense)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(
    "make", [keras.layers.MaxPooling2D, keras.layers.AveragePooling2D]
)
@pytest.mark.parametrize("window", [(2, 2), (3, 2), ((3, 5), (2, 1)), ((4, 2), (4, 3))])
def test_pooling_as_shifts(make, window, padding):
    model = sequential((7, 9, 3), make(*window, padding=padding))
    x = np.random.default_rng(1).normal(size=(2, 7, 9, 3)).astype("float32") - 2
    merged = kmlp.merge(model, dense="all")
    assert not convolving(merged)
    assert merged.output_shape == model.output_shape
    assert cases.relative_error(cases.run(merged, x), cases.run(model, x)) <= 1e-6
    assert list(dense_layers(merged).values()) == [SHIFTS]
    assert convolving(kmlp.merge(model, dense="cheaper"))


def test_a_late_mix_shift_is_one_fully_connected_layer():
    """MS-MLP-T's last stage: 1.84 million multiply-adds a block, 2.96 as trained."""
    inputs = keras.Input((7, 7, 768))
    block = kmlp.layers.MixShift((1, 7, 7, 7, 7), name="mix")
    model = keras.Model(inputs, block(inputs))
    cases.randomize(model)
    plain, merged = kmlp.merge(model), kmlp.merge(model, dense="cheaper")
    counts = [kmlp.profile(each).macs for each in (model, plain, merged)]
    assert counts == [2_963_520, 2_593_766, 768 * 49 * 49]
    assert dense_layers(merged) == {"mix": POSITIONS}
    x = np.random.default_rng(1).normal(size=(2, 7, 7, 768)).astype("float32")
    error = cases.relative_error(cases.run(merged, x), cases.run(model, x))
    print(error)
    assert error <= 1e-6


@pytest.mark.parametrize("order", ["shift_mix", "mix_shift"])
def test_mix_shift_on_maps_smaller_than_its_windows(order):
    inputs = keras.Input((3, 5, 14))
    block = kmlp.layers.MixShift((1, 3, 5, 7), (-2, 1, 0, 4), order=order)
    model = keras.Model(inputs, block(inputs))
    cases.randomize(model)
    merged = kmlp.merge(model, dense="cheaper")
    assert POSITIONS in dense_layers(merged).values()
    x = np.random.default_rng(1).normal(size=(2, 3, 5, 14)).astype("float32")
    error = cases.relative_error(cases.run(merged, x), cases.run(model, x))
    assert error <= 1e-6


def test_forms_follow_the_counted_cost():
    """ConvMLP on images of 32: its last maps are 2×2 and 1×1."""
    model = kmlp.ConvMLP(
        10,
        (32, 32, 3),
        stem_width=8,
        conv_blocks=1,
        widths=(8, 8, 8),
        depths=(1, 1, 1),
    )
    merged = kmlp.merge(model, dense="all")
    forms = dense_layers(merged)
    assert forms["tokenizer_conv1"] == SHIFTS_FC
    assert forms["tokenizer_pool"] == SHIFTS
    assert forms["stage0_block0_connect"] == SHIFTS  # 4×4: 16 positions, 9 taps
    assert forms["stage1_block0_connect"] == POSITIONS
    assert forms["stage1_downsample"] == POSITIONS
    cheaper = kmlp.merge(model, dense="cheaper")
    fewer = {name for name, form in forms.items() if form == POSITIONS}
    assert dense_layers(cheaper) == dict.fromkeys(fewer, POSITIONS)
    counts = [kmlp.profile(m).macs for m in (kmlp.merge(model), cheaper, merged)]
    assert counts[0] > counts[1] == counts[2]


def test_one_layer_on_maps_of_several_sizes_stays_independent_of_them():
    inputs = keras.Input((2, 2, 3))
    conv = keras.layers.Conv2D(3, 3, padding="same")
    larger = keras.layers.UpSampling2D(4)(conv(inputs))
    model = keras.Model(inputs, conv(larger))
    x = np.random.default_rng(1).normal(size=(2, 2, 2, 3)).astype("float32")
    merged = open_merged(model, "all")
    assert list(dense_layers(merged).values()) == [SHIFTS_FC]
    assert cases.relative_error(cases.run(merged, x), cases.run(model, x)) <= TOLERANCE


def test_open_sizes_are_said():
    model = cases.build("convmlp", input_shape=(None, None, 3))
    x = np.random.default_rng(1).normal(size=(2, 37, 50, 3)).astype("float32")
    merged = open_merged(model, "all")
    assert POSITIONS not in dense_layers(merged).values()
    assert not convolving(merged)
    assert cases.relative_error(cases.run(merged, x), cases.run(model, x)) <= TOLERANCE
    assert not dense_layers(open_merged(model, "cheaper"))


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Conv2DTranspose(4, 3, name="c"),
        keras.layers.Conv2D(3, 3, groups=3, name="c"),
        keras.layers.SeparableConv2D(4, 3, name="c"),
    ],
)
def test_what_has_no_other_form_is_named(layer):
    model = sequential((8, 8, 3), layer)
    with pytest.raises(ValueError, match=r"dense='cheaper'.*Received: .*c \("):
        kmlp.merge(model, dense="all")
    assert not dense_layers(kmlp.merge(model, dense="cheaper"))


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="dense"):
        kmlp.merge(cases.build("convmlp"), dense="some")


def test_counts_are_of_what_is_computed():
    model = sequential((2, 2, 3), keras.layers.Conv2D(4, 3, padding="same"))
    merged = kmlp.merge(model, dense="all")
    assert kmlp.profile(merged).macs == math.prod((2, 2, 3, 2, 2, 4))
    assert kmlp.profile(model).macs == math.prod((2, 2, 3, 3, 3, 4))
