"""Merging: equality, for every family and for models of somebody else's."""

import keras
import numpy as np
import pytest
import shipped
from cases import (
    CASES,
    FULLY_CONNECTED,
    build,
    images,
    randomize,
    relative_error,
    run,
    spread,
)

import kmlp
from kmlp.layers import (
    BatchNorm,
    ChannelMLP,
    L2Norm,
    MixingMLP,
    PatchEmbed,
    SetSharingLinear,
)

TOLERANCE = 1e-5


def leaves(model):
    """All layers without parts of their own, nested models included."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if not layer._layers and not isinstance(layer, keras.Model)
    ]


def everything(model):
    """A model whose outputs are the model's own and its pyramid."""
    outputs = {"outputs": model.outputs[0], **model.pyramid_outputs}
    return keras.Model(model.inputs, outputs)


@pytest.mark.parametrize("case", CASES)
def test_merged_equals_trained_and_leaves_it_untouched(case):
    model = build(case)
    x = images(model, 3)
    expected = run(everything(model), x)
    weights = model.get_weights()
    merged = kmlp.merge(model)
    for name, value in run(everything(merged), x).items():
        assert relative_error(value, expected[name]) <= TOLERANCE
    assert all((a == b).all() for a, b in zip(model.get_weights(), weights))
    assert relative_error(run(model, x), expected["outputs"]) <= 1e-6
    assert not {id(w) for w in merged.weights} & {id(w) for w in model.weights}
    assert [la.name for la in merged.layers] == [la.name for la in model.layers]
    assert merged.name == model.name


def test_a_trained_network_answers_as_before():
    """Its local branches have learned: without them it is another network."""
    model, (x, _) = shipped.network(), shipped.photos()
    expected = run(everything(model), x)
    for name, value in run(everything(kmlp.merge(model)), x).items():
        assert relative_error(value, expected[name]) <= TOLERANCE
        if name == "outputs":
            assert (value.argmax(-1) == expected[name].argmax(-1)).all()
    twin = type(model).from_config(model.get_config())
    twin.set_weights(model.get_weights())
    for weight in twin.weights:
        if "/local" in weight.path and weight.path.endswith("kernel"):
            weight.assign(0 * weight)
    assert shipped.top1(run(twin, x)) < shipped.top1(expected["outputs"]) - 5


@pytest.mark.parametrize("case", spread(CASES))
def test_merging_twice_changes_nothing(case):
    merged = kmlp.merge(build(case))
    again = kmlp.merge(merged)
    assert again.get_config() == merged.get_config()
    for a, b in zip(merged.weights, again.weights, strict=True):
        assert a.path == b.path
        assert (keras.ops.convert_to_numpy(a) == keras.ops.convert_to_numpy(b)).all()


@pytest.mark.parametrize("case", spread(CASES))
def test_merged_models_save_and_load(case, tmp_path):
    merged = kmlp.merge(build(case))
    x = images(merged)
    merged.save(tmp_path / "merged.keras")
    loaded = keras.models.load_model(tmp_path / "merged.keras")
    assert (run(loaded, x) == run(merged, x)).all()


@pytest.mark.parametrize("case", CASES)
def test_norms_and_branches_are_gone(case):
    merged = kmlp.merge(build(case))
    kinds = {type(layer).__name__ for layer in leaves(merged)}
    assert "BatchNorm" not in kinds
    assert "LocalBranch" not in {
        type(la).__name__ for la in merged._flatten_layers(include_self=False)
    }
    standardisations = [
        la for la in leaves(merged) if isinstance(la, keras.layers.LayerNormalization)
    ]
    # A layer norm keeps its scale only where it feeds the residual stream, or an FC
    # over positions, into which nothing per channel fits.
    for norm in standardisations:
        owner = merged.get_layer(norm.path.split("/")[0])
        assert norm.scale == isinstance(owner, (PatchEmbed, MixingMLP)), norm.path
    for layer in leaves(merged):
        if isinstance(layer, L2Norm):
            assert not layer.scale, layer.path
    if case in FULLY_CONNECTED:
        assert not standardisations
        assert not kinds & {"Conv2D", "DepthwiseConv2D"}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_merging_keeps_the_policy(policy):
    merged = kmlp.merge(build("repmlpnet", dtype=policy))
    inner = [la for la in leaves(merged) if not isinstance(la, keras.layers.InputLayer)]
    assert {la.dtype_policy.name for la in inner} == {policy}


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """A block of somebody's own, with parts in attributes, lists and dicts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.spatial = SetSharingLinear(2, local_kernels=(1, 3), norm="batch")
        self.rest = [ChannelMLP(2, norm="batch"), keras.layers.Dense(8)]
        self.named = {"norm": BatchNorm()}

    def build(self, input_shape):
        self.spatial.build(input_shape)
        for part in (*self.rest, self.named["norm"]):
            part.build(input_shape)
        self.offset = self.add_weight(name="offset", shape=(8,), initializer="normal")

    def call(self, x, training=None):
        x = self.spatial(x, training=training) + self.offset
        x = self.rest[1](self.rest[0](x, training=training))
        return self.named["norm"](x, training=training)


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = Block()
        self.norm = BatchNorm()

    def call(self, x):
        return self.norm(self.block(x))


def functional():
    inputs = keras.Input((6, 4, 8))
    return keras.Model(inputs, Block()(inputs) + inputs)


def sequential():
    return keras.Sequential([keras.Input((6, 4, 8)), Block(), BatchNorm()])


def subclassed():
    model = Subclassed()
    model.build((None, 6, 4, 8))
    model(np.zeros((1, 6, 4, 8), "float32"))
    return model


def nested():
    inputs = keras.Input((32, 48, 3))
    inner = kmlp.ResMLP(
        6, (32, 48, 3), patch_size=8, width=8, depth=1, local_kernels=(3,)
    )
    middle = keras.Model(inner.inputs, keras.layers.Dense(5)(inner.outputs[0]))
    return keras.Model(inputs, keras.layers.Dense(3)(middle(inputs)))


def nested_backbone():
    inputs = keras.Input((32, 48, 3))
    backbone = kmlp.RepMLPNet(
        include_top=False,
        input_shape=(32, 48, 3),
        depths=(1, 1),
        widths=(8, 16),
        share_sets=(1, 4),
    )
    taps = keras.Model(backbone.inputs, dict(backbone.pyramid_outputs))
    levels = taps(inputs)
    pooled = [keras.layers.GlobalAveragePooling2D()(v) for v in levels.values()]
    return keras.Model(inputs, keras.layers.Concatenate()(pooled))


def shared():
    inputs = keras.Input((6, 4, 8))
    block = Block()
    return keras.Model(inputs, block(block(inputs)))


def test_no_part_is_taken_for_one_that_is_gone():
    """Keras leaves out a part whose address it has noted, though another had it."""
    merged = kmlp.merge(subclassed())
    for layer in merged._flatten_layers():
        parts = {id(part) for part in layer._layers}
        assert layer._tracker.stored_ids["layers"] == parts, layer.name


@pytest.mark.parametrize(
    "make", [functional, sequential, subclassed, nested, nested_backbone, shared]
)
def test_any_model_that_holds_our_layers_merges(make):
    model = make()
    randomize(model)
    shape = (2, 32, 48, 3) if make in (nested, nested_backbone) else (2, 6, 4, 8)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected = run(model, x)
    merged = kmlp.merge(model)
    assert relative_error(run(merged, x), expected) <= TOLERANCE
    assert len(merged.weights) < len(model.weights)
    assert "BatchNorm" not in {type(la).__name__ for la in leaves(merged)}
    assert "BatchNorm" in {type(la).__name__ for la in leaves(model)}
    assert (run(model, x) == expected).all()
    again = kmlp.merge(merged)
    assert relative_error(run(again, x), run(merged, x)) <= 1e-6
    assert len(again.weights) == len(merged.weights)


@pytest.mark.parametrize("make", [functional, subclassed])
def test_what_could_not_be_loaded_is_not_saved(make, tmp_path):
    merged = kmlp.merge(make())
    for model in (merged, kmlp.merge(merged)):
        with pytest.raises(ValueError, match=r"could not be loaded.*a (Block|Sub)"):
            model.save(tmp_path / "merged.keras")


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match=r"built model.*Received: 'mine'"):
        kmlp.merge(Subclassed(name="mine"))


def test_zero_gamma_before_a_depthwise_convolution():
    """A folded scale divides the shift; a zero must not."""
    layer = kmlp.layers.NormDepthwiseConv(3)
    layer.build((None, 5, 5, 4))
    layer.normalize.gamma.assign([0.0, 1.0, -2.0, 1e-9])
    layer.normalize.beta.assign([1.0, 0.5, -1.0, 2.0])
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32")
    assert relative_error(run(layer.merged(), x), run(layer, x)) <= TOLERANCE
