"""The shared checks: every family is the same well-behaved Keras citizen."""

import inspect

import keras
import numpy as np
import pytest
from cases import CASES, FAMILIES, build, images, long, relative_error, run, spread

import kmlp


@pytest.mark.parametrize("case", spread(CASES))
def test_serialisation_round_trips(case, tmp_path):
    model = build(case)
    x = images(model)
    expected = run(model, x)
    twin = type(model).from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    named = inspect.signature(type(model)).parameters.keys()
    assert model.get_config().keys() - {"trainable"} == named
    assert [w.path for w in twin.weights] == [w.path for w in model.weights]
    assert len({w.path for w in model.weights}) == len(model.weights)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert list(loaded.pyramid_outputs) == list(model.pyramid_outputs)
    assert (run(loaded, x) == expected).all()

    model.save_weights(tmp_path / "model.weights.h5")
    twin.load_weights(tmp_path / "model.weights.h5")
    assert (run(twin, x) == expected).all()


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        *((case, "mixed_bfloat16") for case in CASES),
        *(
            pytest.param(*case.values, policy, marks=case.marks)
            for policy in ("float32", "mixed_float16", "bfloat16")
            for case in spread(CASES)
        ),
    ],
)
def test_every_sublayer_follows_the_policy(case, policy):
    model = build(case, dtype=policy)
    assert model.dtype_policy.name == policy
    layers = list(model._flatten_layers(include_self=False))
    layers = [la for la in layers if not isinstance(la, keras.layers.InputLayer)]
    assert {la.dtype_policy.name for la in layers} == {policy}
    assert {str(w.dtype) for w in model.weights} == {model.dtype_policy.variable_dtype}
    outputs = model(images(model))
    assert (
        keras.backend.standardize_dtype(outputs.dtype)
        == model.dtype_policy.compute_dtype
    )
    assert type(model).from_config(model.get_config()).dtype_policy.name == policy


@pytest.mark.parametrize("case", spread(CASES))
def test_low_precision_stays_close_to_float32(case):
    model = build(case)
    x = images(model)
    expected = run(model, x)
    for policy, tolerance in (("mixed_bfloat16", 0.15), ("mixed_float16", 0.02)):
        twin = build(case, dtype=policy)
        twin.set_weights(model.get_weights())
        actual = run(twin, x).astype("float32")
        assert relative_error(actual, expected) <= tolerance, policy


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        *((*case.values, "float32") for case in spread(CASES) if not case.marks),
        *(
            pytest.param(*case.values, "float32", marks=case.marks)
            for case in spread(CASES)
            if case.marks
        ),
        # Precision is the layers', which a case of each family has.
        ("convmlp", "mixed_bfloat16"),
        *(long(name, "mixed_bfloat16") for name in FAMILIES if name != "convmlp"),
        *(long(name, "mixed_float16") for name in FAMILIES),
    ],
)
def test_one_training_step(case, policy):
    model = build(case, dtype=policy, drop_path_rate=0.1)
    model.compile(
        optimizer=keras.optimizers.SGD(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    history = model.fit(images(model, 4), np.arange(4), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    # float16 starts with a large loss scale and may skip the first step.
    if policy != "mixed_float16":
        # Single weights may stand still: a norm behind them removes their effect.
        moved = {
            weight.path.split("/")[0]
            for weight, old in zip(model.trainable_weights, before)
            if np.abs(keras.ops.convert_to_numpy(weight) - old).max() > 0
        }
        assert moved == {w.path.split("/")[0] for w in model.trainable_weights}
    assert all(np.isfinite(keras.ops.convert_to_numpy(w)).all() for w in model.weights)


@pytest.mark.parametrize("case", CASES)
def test_shapes_symbolic_eager_and_computed_agree(case):
    model = build(case)
    assert model.compute_output_shape((None, *model.inputs[0].shape[1:])) == (None, 10)
    features = keras.Model(model.inputs, dict(model.pyramid_outputs))
    for level, value in run(features, images(model)).items():
        symbolic = model.pyramid_outputs[level]
        assert value.shape[1:] == symbolic.shape[1:]
        stride = 2 ** int(level[1:])
        height, width = model.inputs[0].shape[1:3]
        assert value.shape[1:3] == (-(-height // stride), -(-width // stride))
    for layer in model.layers[1:]:
        if isinstance(layer.input, list):
            continue
        assert tuple(layer.compute_output_shape(layer.input.shape)) == tuple(
            layer.output.shape
        ), layer.name


@pytest.mark.parametrize("case", CASES)
def test_without_the_head_the_output_is_the_last_level(case):
    model = build(case)
    backbone = build(case, include_top=False)
    last = list(backbone.pyramid_outputs)[-1]
    assert backbone.outputs[0] is backbone.pyramid_outputs[last]
    names = {w.path for w in backbone.weights}
    top = ("head/", "class_mlp/")
    assert names == {w.path for w in model.weights if not w.path.startswith(top)}


@pytest.mark.parametrize("case", spread(CASES))
def test_head_activation(case):
    model = build(case, head_activation="softmax")
    assert np.abs(run(model, images(model)).sum(axis=-1) - 1).max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_blocks_start_with_weights_of_their_own(case):
    family, arguments = CASES[case]
    weights = [w for w in family(10, **arguments).weights if "kernel" in w.path]
    values = [keras.ops.convert_to_numpy(w) for w in weights]
    for i, value in enumerate(values):
        for j, other in enumerate(values[:i]):
            if value.size > 4 and value.shape == other.shape:
                same = (value == other).mean()
                assert same < 0.5, (weights[i].path, weights[j].path)


@pytest.mark.parametrize("name", ["convmlp_s", *map(long, ("msmlp_t", "swin_t"))])
def test_any_size_in_one_model(name):
    """One model of unknown size equals models of each size."""
    anysize = kmlp.create_model(name, 5, (None, None, 3), depths=SHORT[name])
    for size in ((64, 64), (33, 70), (48, 95), (17, 8)):
        fixed = kmlp.create_model(name, 5, (*size, 3), depths=SHORT[name])
        fixed.set_weights(anysize.get_weights())
        x = images(fixed)
        assert relative_error(run(anysize, x), run(fixed, x)) <= 1e-5


SHORT = {
    "convmlp_s": (1, 1, 1),
    "msmlp_t": (1, 1, 1, 1),
    "swin_t": (1, 2, 1, 1),
}


@pytest.mark.parametrize(
    "case", ["repmlpnet_partitioned", "resmlp_partitioned", "smlpnet_local"]
)
def test_blocks_are_independent_but_for_what_pools(case):
    """A map of equal tiles gives the tile's result in every tile.

    Every layer then sees the same pooled values, and each block is one sample.
    """
    family, arguments = CASES[case]
    arguments = {**arguments, "include_top": False}
    large = family(10, **arguments)
    grid, patch = arguments["block_size"], arguments.get("patch_size", 4)
    tile = (grid[0] * patch, grid[1] * patch)
    small = family(10, **{**arguments, "input_shape": (*tile, 3)})
    if case == "smlpnet_local":
        # Its depthwise convolution crosses the borders of tiles; leave it out.
        for layer in small.layers:
            if layer.name.endswith("_depthwise"):
                kernel = keras.ops.convert_to_numpy(layer.conv.kernel)
                kernel = np.where(np.arange(9).reshape(3, 3, 1, 1) == 4, kernel, 0)
                layer.conv.kernel.assign(kernel)
    large.set_weights(small.get_weights())
    x = images(small, 1)
    height, width = large.inputs[0].shape[1:3]
    repeats = (1, height // tile[0], width // tile[1], 1)
    assert repeats != (1, 1, 1, 1)
    expected = np.tile(run(small, x), repeats)
    actual = run(large, np.tile(x, repeats))
    assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kmlp.create_model("convmlp_x"), ["convmlp_s", "'convmlp_x'"]),
        (lambda: kmlp.create_model("resnet50"), ["Received: 'resnet50'"]),
        (lambda: kmlp.create_model("repmlpnet_t224", 5, (225, 224, 3)), ["224", "256"]),
        (lambda: kmlp.create_model("resmlp_s12", 5, (100, 224, 3)), ["96 or 112"]),
        (lambda: kmlp.create_model("smlpnet_t", 5, (65, 64, 3)), ["64 or 96"]),
        (lambda: kmlp.create_model("resmlp_s12", 5, (None, 224, 3)), ["known height"]),
        (lambda: kmlp.create_model("convmlp_s", 5, (224, 224)), ["(height, width"]),
        (
            lambda: kmlp.RepMLPNet(5, share_sets=(1, 4, 16, 100)),
            ["share_sets", "512", "Received: share_sets=100"],
        ),
        (lambda: kmlp.RepMLPNet(5, depths=(2, 2)), ["equally long", "depths=(2, 2)"]),
        (
            lambda: kmlp.RepMLPNet(5, (64, 64, 3), block_size=(12, 16)),
            ["block_size", "multiple of 8", "(12, 16)"],
        ),
        (
            lambda: kmlp.SMLPNet(5, (None, 96, 3), block_size=(16, 16)),
            ["known height", "(None, 96, 3)"],
        ),
        (lambda: kmlp.RepMLPNet(5, local_kernels=(2,)), ["odd", "(2, 2)"]),
        (lambda: kmlp.RepMLPNet(5, gate_reduction=1000), ["reduction=1000"]),
        (lambda: kmlp.ConvMLP(5, drop_path_rate=1.0), ["[0, 1)", "1.0"]),
        (
            lambda: kmlp.ConvMLP(5, conv_stage="resnet"),
            ["conv_stage='resnet'", "'bottleneck', 'plain', 'mlp'"],
        ),
        (
            lambda: kmlp.ConvMLP(5, downsample="pool"),
            ["downsample='pool'", "'conv', 'merge'"],
        ),
        (
            lambda: kmlp.ConvMLP(5, conv_stage="plain", conv_blocks=0),
            ["needs one", "conv_blocks=0"],
        ),
        (lambda: kmlp.SMLPNet(5, fusion="mean"), ["fusion='mean'", "weighted_sum"]),
        (lambda: kmlp.SMLPNet(5, axes="both"), ["axes='both'", "sequential"]),
        (
            lambda: kmlp.SMLPNet(5, global_mixing="axes"),
            ["global_mixing='axes'", "'positions'"],
        ),
        (
            lambda: kmlp.SMLPNet(5, global_mixing=(True, False)),
            ["equally long", "global_mixing=(True, False)"],
        ),
        (
            lambda: kmlp.SMLPNet(
                5, local_mixing=False, global_mixing=(True, True, True, False)
            ),
            ["local or global", "local_mixing=False"],
        ),
        (lambda: kmlp.ResMLP(5, norm="group"), ["norm", "'group'", "affine"]),
        (lambda: kmlp.MSMLP(5, order="both"), ["order", "'both'", "shift_mix"]),
        (lambda: kmlp.MSMLP(5, shifts=(0, 1)), ["regions", "shifts=(0, 1)"]),
        (lambda: kmlp.MSMLP(5, mixing="half"), ["mixing", "'half'", "depthwise"]),
        (lambda: kmlp.MSMLP(5, width=4), ["groups", "channels"]),
    ],
)
def test_bad_arguments_get_one_clear_line(call, words):
    with pytest.raises(ValueError, match="Received") as error:
        call()
    message = str(error.value)
    assert "\n" not in message.split("Arguments received by")[0].strip()
    for word in words:
        assert word in message


def test_names_are_listed_by_pattern():
    assert kmlp.list_models("convmlp_*") == ["convmlp_l", "convmlp_m", "convmlp_s"]
    assert len(kmlp.list_models()) == 36
    assert kmlp.list_models("nothing*") == []


def test_overrides_reach_the_constructor():
    model = kmlp.create_model(
        "resmlp_s24", 7, (64, 64, 3), depth=2, width=16, local_kernels=(3,)
    )
    assert model.name == "resmlp_s24"
    assert (model.depth, model.layer_scale, model.num_classes) == (2, 1e-5, 7)
    assert model.outputs[0].shape == (None, 7)
