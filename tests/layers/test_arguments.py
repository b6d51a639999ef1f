"""A layer's signature is the one place that names its arguments."""

import copy
import importlib
import inspect
import json
import pickle

import keras
import numpy as np
import pytest

import kmlp
from kmlp.layers import ChannelMLP, ConvNorm, SetSharingLinear
from kmlp.layers import layer as base

# What the layers need that have no default for it.
REQUIRED = {
    "AdaptivePooling": {"bins": 2},
    "ClassifierHead": {"num_classes": 3},
    "DenseDetections": {
        "num_classes": 3,
        "scales": [1.0, 2.0],
        "ratios": [1.0],
        "strides": [8, 16],
    },
    "DenseHead": {"outputs": 6},
    "Detections": {
        "std": [0.1, 0.1, 0.2, 0.2],
        "score_threshold": 0.1,
        "nms_threshold": 0.5,
        "count": 4,
    },
    "BoxHead": {"num_classes": 3},
    "MaskHead": {"num_classes": 3},
    "FocalAttention": {"heads": 2},
    "LocalBranch": {"kernel_size": 3},
    "MixingMLP": {"hidden": 4},
    "PatchEmbed": {"filters": 8, "patch_size": 2},
    "PositionLinear": {"units": 4},
    "Proposals": {
        "scales": [1.0],
        "ratios": [0.5, 1.0],
        "strides": [4, 8],
        "candidates": 5,
        "count": 3,
    },
    "Refine": {"std": [0.1, 0.1, 0.2, 0.2]},
    "RoIAlign": {"size": 7},
    "Sampler": {"count": 4, "positive_share": 0.5},
    "WindowAttention": {"heads": 2},
}


def layers_of(cls):
    for found in cls.__subclasses__():
        yield found
        yield from layers_of(found)


def own_layers():
    for package in ("layers", "detection", "segmentation"):
        importlib.import_module(f"kmlp.{package}")
    found = {c.__name__: c for c in layers_of(base.Layer)}
    return [c for _, c in sorted(found.items()) if c.__module__.startswith("kmlp.")]


@pytest.mark.parametrize("layer", own_layers(), ids=lambda c: c.__name__)
def test_the_configuration_names_every_argument_and_rebuilds_the_layer(layer):
    built = layer(**REQUIRED.get(layer.__name__, {}), dtype="mixed_bfloat16")
    config = built.get_config()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = {
        name: parameter.default
        for name, parameter in inspect.signature(layer).parameters.items()
        if parameter.kind in kinds
    }
    assert named.keys() == config.keys() - {"name", "trainable", "dtype"}
    written = json.loads(json.dumps(config))
    rebuilt = layer.from_config(written)
    assert rebuilt.get_config() == config
    for name, default in named.items():
        plain = isinstance(default, bool | int | float | None)
        if plain and name != "kernel_size":  # a pair
            given = REQUIRED.get(layer.__name__, {}).get(name, default)
            assert getattr(rebuilt, name) == given, name


@keras.saving.register_keras_serializable("tests")
class Sized(ChannelMLP):
    """Somebody's layer with an argument of its own and another default."""

    def __init__(self, extra, mlp_ratio=3, **kwargs):
        super().__init__(mlp_ratio, norm="batch", **kwargs)
        self.doubled = 2 * extra


@keras.saving.register_keras_serializable("tests")
class Named(Sized):
    """A subclass of a subclass, configured by hand."""

    def __init__(self, label="x", **kwargs):
        super().__init__(4, **kwargs)
        self.label = label.upper()

    def get_config(self):
        config = super().get_config()
        return {k: config[k] for k in ("name", "label", "mlp_ratio", "dtype")}


def test_subclasses_record_what_they_add():
    layer = Sized(5, activation="relu", layer_scale=0.5)
    config = layer.get_config()
    assert (config["extra"], config["mlp_ratio"], config["norm"]) == (5, 3, "batch")
    assert (config["activation"], config["layer_scale"]) == ("relu", 0.5)
    assert layer.doubled == 10
    named = Named.from_config(Named("y", mlp_ratio=2).get_config())
    assert (named.label, named.doubled, named.mlp_ratio) == ("Y", 8, 2)
    assert named.norm == "batch"


def test_calls_that_do_not_fit_fail_in_pythons_words():
    with pytest.raises(TypeError, match=r"PatchEmbed\.__init__\(\) missing 1 required"):
        kmlp.layers.PatchEmbed(3)
    with pytest.raises(TypeError, match=r"RepMLPNet\.__init__\(\) got an unexpected"):
        kmlp.RepMLPNet(widht=3)


def test_copies_keep_arguments_and_weights(tmp_path):
    inputs = keras.Input((8, 8, 6))
    x = ConvNorm(6, [1, 3], name="conv")(inputs)
    x = SetSharingLinear(2, local_kernels=[1, [3, 3]], norm="batch", name="mix")(x)
    model = keras.Model(inputs, x)
    values = np.random.default_rng(0).normal(size=(2, 8, 8, 6)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(values))
    model.save(tmp_path / "model.keras")
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for copied in (
        twin,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        keras.models.load_model(tmp_path / "model.keras"),
    ):
        assert copied.get_layer("conv").kernel_size == (1, 3)
        assert copied.get_layer("mix").local_kernels == ((1, 1), (3, 3))
        assert (keras.ops.convert_to_numpy(copied(values)) == expected).all()
    changed = base.copy(model.get_layer("mix"), norm=None, use_bias=False)
    assert (changed.norm, changed.use_bias, changed.share_sets) == (None, False, 2)


def test_saved_models_find_layers_by_the_modules_that_held_them():
    for module, name in (
        ("class_mlp", "ClassMLP"),
        ("conv_mixing", "ConvMixing"),
        ("cross_patch", "CrossPatch"),
        ("mixing_mlp", "MixingMLP"),
        ("set_sharing", "SetSharingLinear"),
    ):
        found = importlib.import_module(f"kmlp.layers.{module}")
        assert getattr(found, name) is getattr(kmlp.layers, name)
