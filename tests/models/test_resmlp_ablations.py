"""ResMLP's variants: what they count, what they compute, what they refuse."""

import keras
import numpy as np
import pytest
from cases import build, images, relative_error, run

import kmlp
from kmlp import algebra
from kmlp.layers import (
    BatchNorm,
    ClassMixing,
    ClassMLP,
    ConvMixing,
    CrossPatch,
    L2Norm,
    MixingMLP,
    PositionEncoding,
)
from kmlp.layers.layer import host
from kmlp.models.papers import ABLATIONS

PATCHES, PIXELS, CLASSES = 14 * 14, 16 * 16 * 3, 1000


def by_hand(mixing="linear", hidden=0, class_mlp=False, positions=False, **network):
    """Trainable parameters and multiply-adds by the paper's equations."""
    d, depth, n = network["width"], network["depth"], PATCHES
    # Kernel and bias of what mixes patches, and its products.
    mixings = {
        "linear": (n * n + n, n * n * d),
        "conv3": (9 * d * d + d, n * 9 * d * d),
        "depthwise_conv3": (9 * d + d, n * 9 * d),
        "mlp": (2 * n * hidden + hidden + n, 2 * n * hidden * d),
    }
    mlp, mlp_macs = d * 4 * d + 4 * d + 4 * d * d + d, 8 * d * d  # macs of a patch
    # Two norms with scale and shift, two layer scales.
    around = 2 * 2 * d + (2 * d if network.get("layer_scale", True) else 0)
    parameters, macs = mixings[mixing]
    parameters = depth * (parameters + mlp + around)
    macs = depth * (macs + n * mlp_macs)
    if class_mlp:  # a token; twice one linear map over token and patches, and an MLP
        parameters += d + 2 * ((1 + n) + 1 + mlp + around)
        macs += 2 * ((1 + n) * d + mlp_macs)
    parameters += n * d if positions else 0
    stem, head = PIXELS * d + d, 2 * d + d * CLASSES + CLASSES
    return parameters + stem + head, macs + n * PIXELS * d + d * CLASSES


def _arguments(name):
    """What a row's name says, as `by_hand` takes it."""
    table, row = name.split("/")[1:]
    if table != "appendix_a":
        depth = int(row[1:3])
        kinds = {"s12_conv3": "conv3", "s12_depthwise_conv3": "depthwise_conv3"}
        mixing = kinds.get(row, "linear")
        return {"depth": depth, "mixing": mixing, "class_mlp": "class_mlp" in row}
    found = {"depth": 24, "mixing": "mlp", "class_mlp": True, "positions": True}
    found["hidden"] = 4 * PATCHES
    if row.startswith("expansion_"):
        factor = float(row.removeprefix("expansion_").replace("_", "."))
        found |= {"hidden": int(factor * PATCHES), "class_mlp": False}
    if row == "linear":
        found |= {"mixing": "linear", "class_mlp": False}
    if row == "position_none":
        found["positions"] = False
    return found


ROWS = [name for name in ABLATIONS if name.startswith("resmlp/")]


@pytest.mark.parametrize("name", ROWS)
def test_rows_state_what_the_equations_count(name):
    assert ABLATIONS[name].counted == by_hand(width=384, **_arguments(name))


def test_the_counts_that_others_give():
    """Of the sheet and of timm's networks, so that `by_hand` counts right itself."""
    assert by_hand(width=384, depth=12) == (15_350_872, 3_009_739_776)
    conv = by_hand("conv3", width=384, depth=12)
    depthwise = by_hand("depthwise_conv3", width=384, depth=12)
    millions = [round(count / 1e6, 2) for count, _ in (depthwise, conv)]
    billions = [round(macs / 1e9, 2) for _, macs in (depthwise, conv)]
    assert (millions, billions) == ([14.93, 30.82], [2.84, 5.95])
    mixer = by_hand("mlp", 384, width=768, depth=12, layer_scale=None)
    assert mixer[0] == 59_880_472


def test_figures_are_the_papers():
    """Appendix A, read off once more."""
    printed = {
        "activation": (79.2, 78.7, 78.8, 79.1),
        "expansion": (78.6, 79.2, 79.2, 79.3, 78.8, 78.8),
        "norm": (79.2, 79.2 + 0.8, 79.2 + 0.4, 79.2 + 0.4),
        "linear": (79.5,),
        "distilled": (81.5,),
    }
    for words, figures in printed.items():
        rows = kmlp.list_ablations(f"resmlp/appendix_a/{words}*")
        assert [ABLATIONS[row].top1 for row in rows] == pytest.approx(figures), words
    assert len([name for name in ROWS if "/table4/" in name]) == 8


# The layers, written out.


def _random(layer, shape, *more):
    layer.build((None, *shape))
    random = np.random.default_rng(0)
    for variable in layer.weights:
        positive = variable.name == "moving_variance"
        value = random.uniform(0.5, 2, variable.shape) if positive else None
        variable.assign(random.normal(size=variable.shape) if value is None else value)
    return layer, random.normal(size=(2, *shape)).astype("float32")


def _values(layer):
    return {w.path.partition("/")[2]: host(w) for w in layer.weights}


def _normed(kind, x, w):
    axis = -1
    if kind == "l2":
        x = x / np.sqrt((x * x).sum(axis, keepdims=True) + 1e-5)
    elif kind == "layer":
        x = x - x.mean(axis, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis, keepdims=True) + 1e-5)
    elif kind == "batch":
        x = (x - w["norm/moving_mean"]) / np.sqrt(w["norm/moving_variance"] + 1e-5)
    elif kind == "affine":
        return w["norm/alpha"] * x + w["norm/beta"]
    return x * w["norm/gamma"] + w["norm/beta"]


def _equal(layer, x, expected):
    for form in (layer, layer.merged()):
        actual = keras.ops.convert_to_numpy(form(x))
        assert relative_error(actual, expected) < 1e-5
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert layer.compute_output_shape((None, *x.shape[1:]))[1:] == expected.shape[1:]


@pytest.mark.parametrize("norm", ["affine", "layer", "batch", "l2"])
def test_a_mixing_mlp_is_two_matrices_over_positions(norm):
    layer = MixingMLP(7, norm=norm, activation="relu", layer_scale=0.5, name="mix")
    layer, x = _random(layer, (3, 4, 5))
    w = _values(layer)
    z = _normed(norm, x.astype("float64"), w).reshape(2, 12, 5)
    hidden = np.maximum(w["fc1/kernel"] @ z + w["fc1/bias"][:, None], 0)
    mixed = w["fc2/kernel"] @ hidden + w["fc2/bias"][:, None]
    _equal(layer, x, (mixed * w["gamma"]).reshape(x.shape))
    assert layer.multiply_adds(x.shape) == 2 * 7 * 12 * 5


def test_a_linear_mixing_keeps_of_an_l2_norm_what_is_no_scale():
    layer = CrossPatch(norm="l2", layer_scale=0.5, name="patches")
    layer, x = _random(layer, (3, 4, 5))
    w = _values(layer)
    z = _normed("l2", x.astype("float64"), w).reshape(2, 12, 5)
    mixed = w["mix/kernel"][0] @ z + w["mix/bias"][0][:, None]
    _equal(layer, x, (mixed * w["gamma"]).reshape(x.shape))
    assert not layer.merged().normalize.weights


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("norm", ["affine", "layer", "batch", "l2"])
def test_a_convolution_pads_with_zeros_behind_the_norm(norm, depthwise):
    layer = ConvMixing(3, depthwise=depthwise, norm=norm, layer_scale=0.5, name="mix")
    layer, x = _random(layer, (3, 4, 5))
    w = _values(layer)
    z = np.pad(_normed(norm, x.astype("float64"), w), [(0, 0), (1, 1), (1, 1), (0, 0)])
    kernel = w["conv/kernel"]
    if depthwise:
        kernel = np.einsum("ijc,cd->ijcd", kernel[..., 0], np.eye(5))
    taps = [
        z[:, i : i + 3, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    _equal(layer, x, (sum(taps) + w["conv/bias"]) * w["gamma"])
    assert layer.multiply_adds(x.shape) == 12 * 9 * 5 * (1 if depthwise else 5)


@pytest.mark.parametrize("norm", ["affine", "layer", "batch", "l2"])
def test_class_layers_update_the_token_alone(norm):
    layer = ClassMLP(2, mlp_ratio=2, norm=norm, layer_scale=0.5, activation="relu")
    layer, x = _random(layer, (3, 4, 5))
    w = _values(layer)
    patches, token = x.reshape(2, 12, 5).astype("float64"), w["token"] + np.zeros(5)
    token = np.broadcast_to(token, (2, 1, 5))
    for i in range(2):
        mixing, mlp = (
            {k.partition("/")[2]: v for k, v in w.items() if k.startswith(part)}
            for part in (f"mixing{i}/", f"mlp{i}/")
        )
        both = _normed(norm, np.concatenate([token, patches], axis=1), mixing)
        kernel = [mixing["token_kernel"][:, None], mixing["linear/kernel"]]
        read = np.concatenate(kernel, axis=1) @ both + mixing["linear/bias"]
        token = token + mixing["gamma"] * read
        hidden = _normed(norm, token, mlp) @ mlp["fc1/kernel"] + mlp["fc1/bias"]
        hidden = np.maximum(hidden, 0) @ mlp["fc2/kernel"] + mlp["fc2/bias"]
        token = token + mlp["gamma"] * hidden
    _equal(layer, x, token[:, None])
    assert layer.multiply_adds(x.shape) == 2 * (13 * 5 + 2 * 5 * 10)


def test_batch_statistics_are_of_token_and_patches():
    layer = ClassMixing(norm="batch", name="mix")
    layer, x = _random(layer, (3, 4, 5))
    token = np.full((1, 1, 5), 3.0, "float32")
    layer.normalize.momentum = 0.0
    layer(x, token, training=True)
    both = np.concatenate([np.repeat(token, 2, 0), x.reshape(2, 12, 5)], axis=1)
    mean = host(layer.normalize.moving_mean)
    assert relative_error(mean, both.mean(axis=(0, 1))) < 1e-5


def test_l2_starts_with_values_as_large_as_a_layer_norms():
    layer, x = L2Norm(name="norm"), np.random.default_rng(0).normal(size=(4, 64))
    first = keras.ops.convert_to_numpy(layer(10 * x.astype("float32")))
    norm = keras.ops.convert_to_numpy(keras.layers.LayerNormalization()(x))
    assert np.square(first).mean() == pytest.approx(np.square(norm).mean(), rel=1e-2)
    # Squares that half precision cannot hold.
    half = L2Norm(name="norm", dtype="float16")(300 * np.ones((1, 64), "float16"))
    assert keras.ops.convert_to_numpy(half) == pytest.approx(1, rel=1e-2)


# The model.


def test_every_activation_is_everywhere():
    for name in ("gelu", "silu", "hard_swish", "relu"):
        model = kmlp.ResMLP(
            3, (16, 16, 3), patch_size=8, width=4, depth=1, mixing="mlp",
            pooling="class_mlp", activation=name,
        )  # fmt: skip
        used = [la for la in model._flatten_layers() if hasattr(la, "activate")]
        mlps = [la for la in used if isinstance(getattr(la, "activation", 0), str)]
        assert [la.activation for la in mlps] == [name] * 4


def test_hidden_positions_follow_from_ratio_or_are_given():
    arguments = {"patch_size": 8, "width": 8, "depth": 1, "mixing": "mlp"}
    for more, hidden in (
        ({}, 96),
        ({"mixing_ratio": 0.25}, 6),
        ({"mixing_width": 10}, 10),
        ({"block_size": (2, 4), "mixing_ratio": 0.5}, 4),
    ):
        model = kmlp.ResMLP(3, (32, 48, 3), **arguments, **more)
        assert model.get_layer("block0_cross_patch").fc1.kernel.shape[0] == hidden
        assert model.mixing_width == hidden
    assert kmlp.ResMLP(3, (32, 32, 3), patch_size=8, depth=1).mixing_width is None


def test_blocks_of_a_mixing_mlp_are_mixed_alike():
    model = build("resmlp_mixer")  # blocks of 3x4 in 5x8, the last row padded
    layer = model.get_layer("block0_cross_patch")
    x = np.random.default_rng(0).normal(size=(1, 5, 8, 16)).astype("float32")
    whole = keras.ops.convert_to_numpy(layer(x))
    alone = MixingMLP.from_config({**layer.get_config(), "block_size": None})
    alone.build((None, 3, 4, 16))
    alone.set_weights(layer.get_weights())
    corner = keras.ops.convert_to_numpy(alone(x[:, :3, 4:]))
    assert relative_error(whole[:, :3, 4:], corner) < 1e-5


@pytest.mark.parametrize("case", ["resmlp_class_mlp", "resmlp_conv"])
def test_pyramid_and_backbone_know_no_token(case):
    model = build(case, include_top=False)
    assert model.pyramid_outputs["P3"] is model.outputs[0]
    assert model.outputs[0].shape == (None, 4, 6, 16)
    assert "class_mlp" not in [la.name for la in model.layers]


@pytest.mark.parametrize("way", ["interpolate", "interpolate_cubic", "partition"])
def test_other_sizes(way):
    model = build("resmlp_class_mlp")
    random = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith(("kernel", "encoding")):
            variable.assign(random.normal(size=variable.shape))
    twin = kmlp.resize(model, (44, 64, 3), way)
    assert np.isfinite(run(twin, images(twin))).all()
    block = (4, 6) if way == "partition" else (6, 8)
    steps = (1, 1) if way == "partition" else (32 / 44, 48 / 64)
    method = "cubic" if "cubic" in way else "linear"
    old, new = (m.get_layer("block0_cross_patch") for m in (model, twin))
    assert new.hidden == old.hidden == 6
    # W1 Down and Up W2 are the two halves of a kernel over positions that is resized.
    product = host(old.fc2.kernel) @ host(old.fc1.kernel)
    resized = algebra.resize_kernel(product[None], (4, 6), block, method, steps)[0]
    actual = host(new.fc2.kernel) @ host(new.fc1.kernel)
    assert relative_error(actual, resized) < 1e-6
    bias = algebra.resize_map(host(old.fc2.bias)[None], (4, 6), block, method, steps)
    assert relative_error(host(new.fc2.bias), bias[0]) < 1e-6
    # Positions and class layers cover the image, blocks or not.
    steps = 32 / 44, 48 / 64
    rows = algebra.resize_matrix(4, 6, method, steps[0])
    columns = algebra.resize_matrix(6, 8, method, steps[1])
    old, new = (m.get_layer("position_encoding") for m in (model, twin))
    expected = np.einsum("ah,bw,hwc->abc", rows, columns, host(old.encoding))
    assert relative_error(host(new.encoding), expected) < 1e-6
    rows = algebra.resize_matrix(6, 4, method, 1 / steps[0])
    columns = algebra.resize_matrix(8, 6, method, 1 / steps[1])
    old, new = (m.get_layer("class_mlp").mixings[1] for m in (model, twin))
    kernel = host(old.linear.kernel).reshape(4, 6)
    expected = np.einsum("hw,ha,wb->ab", kernel, rows, columns).reshape(1, 48)
    assert relative_error(host(new.linear.kernel), expected) < 1e-6
    assert (host(new.token_kernel) == host(old.token_kernel)).all()


def test_every_class_layer_starts_with_weights_of_its_own():
    model = kmlp.create_model(
        "resmlp_s12", 3, (32, 32, 3), depth=1, width=8, pooling="class_mlp"
    )
    layer = model.get_layer("class_mlp")
    for parts in (layer.mixings, layer.mlps):
        first, second = (
            [w for w in part.trainable_variables if w.path.endswith("kernel")]
            for part in parts
        )
        for a, b in zip(first, second, strict=True):
            assert (host(a) != host(b)).all()


def test_norms_of_variants_are_what_the_name_says():
    kinds = {"batch": BatchNorm, "l2": L2Norm}
    for norm, kind in kinds.items():
        model = kmlp.ResMLP(
            3, (16, 16, 3), patch_size=8, width=4, depth=1, norm=norm, epsilon=1e-3
        )
        norms = [la for la in model._flatten_layers() if isinstance(la, kind)]
        assert len(norms) == 3
        assert {la.epsilon for la in norms} == {1e-3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"mixing": "conv5"}, ["depthwise_conv3", "Received: mixing='conv5'"]),
        ({"pooling": "max"}, ["class_mlp", "Received: pooling='max'"]),
        ({"activation": "swish"}, ["hard_swish", "Received: activation='swish'"]),
        (
            {"position_encoding": "sine"},
            ["learned", "Received: position_encoding='sine'"],
        ),
        ({"norm": "group"}, ["'l2'", "Received: norm='group'"]),
        ({"mixing": "mlp", "mixing_ratio": 0}, ["above 0", "Received: mixing_ratio=0"]),
        ({"mixing_ratio": -1}, ["above 0", "Received: mixing_ratio=-1"]),
        ({"mixing": "mlp", "mixing_width": 0}, ["positive", "mixing_width=0"]),
        ({"mixing_width": 8}, ["mixing='mlp'", "Received: mixing_width=8"]),
        (
            {"mixing": "conv3", "local_kernels": (3,)},
            ["mixing='linear'", "Received: local_kernels=(3,) with mixing='conv3'"],
        ),
        ({"mixing": "mlp", "local_kernels": (1,)}, ["Received: local_kernels=(1,)"]),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(arguments, words):
    with pytest.raises(ValueError, match="Received: ") as error:
        kmlp.ResMLP(3, (32, 32, 3), depth=1, width=8, **arguments)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_layers_over_positions_need_known_sizes():
    for layer in (MixingMLP(4), ConvMixing(), PositionEncoding()):
        with pytest.raises(ValueError, match=r"known height.*Received: input_shape"):
            layer.build((None, None, 4, 8))
