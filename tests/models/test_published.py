"""The published networks' arrays: counts, outputs, activations, strictness."""

import json

import keras
import numpy as np
import pytest
from cases import REFERENCE, build_reference, reference, relative_error, run

import kmlp
from kmlp.analysis.complexity import shapes_only

TOLERANCE = 1e-5
COUNTS = json.loads((REFERENCE / "counts.json").read_text())
PUBLISHED_NAMES = {
    "repmlpnet_t224": "RepMLPNet-T224",
    "repmlpnet_t256": "RepMLPNet-T256",
    "repmlpnet_b224": "RepMLPNet-B224",
    "repmlpnet_b256": "RepMLPNet-B256",
    "repmlpnet_d256": "RepMLPNet-D256",
    "repmlpnet_l256": "RepMLPNet-L256",
    "resmlp_s12": "resmlp_12_224",
    "resmlp_s24": "resmlp_24_224",
    "resmlp_s36": "resmlp_36_224",
    "resmlp_b24": "resmlp_big_24_224",
    "convmlp_s": "ConvMLP-S",
    "convmlp_m": "ConvMLP-M",
    "convmlp_l": "ConvMLP-L",
    "msmlp_t": "MS-MLP-T",
    "msmlp_s": "MS-MLP-S",
    "msmlp_b": "MS-MLP-B",
    "smlpnet_t": "sMLPNet-T",
    "smlpnet_t_a2": "sMLPNet-T*",
    "smlpnet_s": "sMLPNet-S",
    "smlpnet_b": "sMLPNet-B",
}
# Parameters of the variants that `counts.json` does not have.
UNCOUNTED = {
    "focal_t": 28_880_380,
    "focal_s": 51_141_940,
    "focal_b": 89_815_400,
    "mlp_mixer_b16": 59_880_472,
    "swin_t": 28_288_354,
    "swin_s": 49_606_258,
    "swin_b": 87_768_224,
    "msmlp_swin_t": 28_274_428,
    "msmlp_swin_s": 49_592_332,
    "msmlp_swin_b": 87_742_104,
    "msmlp_focal_t": 28_826_532,
    "msmlp_focal_s": 51_088_092,
    "msmlp_focal_b": 89_736_084,
}
FILES = [
    "repmlpnet_small",
    "resmlp_small",
    "resmlp_small_timm",
    "convmlp_small",
    "msmlp_small",
    "smlpnet_small",
    "swin_small",
    "focal_small",
]
# Those that are there as PyTorch writes them, too.
PICKLED = [name for name in FILES if (REFERENCE / f"{name}.pth").exists()]
# Where the recorded activations lie in our graphs.
LEVELS = [f"P{level}" for level in range(2, 6)]
FEATURES = {
    "repmlpnet_small": {f"stage{i}": level for i, level in enumerate(LEVELS)},
    "resmlp_small": {f"block{i}": f"block{i}_add2" for i in range(3)},
    "resmlp_small_timm": {f"block{i}": f"block{i}_add2" for i in range(3)},
    "convmlp_small": {
        "tokenizer": "P2",
        "conv_stage": "P3",
        "stage0_blocks": "stage0_block0_add2",
        "stage1_blocks": "stage1_block1_add2",
        "stage2_blocks": "P5",
    },
    "focal_small": {f"stage{i}": level for i, level in enumerate(LEVELS[:3])},
    "swin_small": {f"stage{i}": level for i, level in enumerate(LEVELS[:3])},
    "msmlp_small": {f"stage{i}": level for i, level in enumerate(LEVELS)},
    "smlpnet_small": {
        "embed0": "patch_embed",
        **{f"embed{i + 1}": f"downsample{i}" for i in range(3)},
    },
}


def test_every_published_variant_is_named():
    ours = set(kmlp.list_models()) - set(UNCOUNTED)
    without = {"repmlpnet_cifar", "resmlp_12_cifar", "smlpnet_xs"}
    assert ours - set(PUBLISHED_NAMES) == without
    assert set(PUBLISHED_NAMES) <= ours
    assert {n for n in COUNTS if "deploy" not in n and "-22" not in n} == set(
        PUBLISHED_NAMES.values()
    )


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_counts_equal_the_published_ones(name):
    counts = COUNTS[PUBLISHED_NAMES[name]]
    # Values are of no interest, and drawing 130 M of them takes long.
    with shapes_only():
        profile = kmlp.profile(kmlp.create_model(name))
    assert profile.trainable == counts["trainable"]
    assert profile.non_trainable == counts["non_trainable"]
    assert abs(profile.macs / counts["macs"] - 1) <= 0.005


@pytest.mark.parametrize("name", UNCOUNTED)
def test_parameters_are_the_published_ones(name):
    with shapes_only():
        profile = kmlp.profile(kmlp.create_model(name))
    assert (profile.trainable, profile.non_trainable) == (UNCOUNTED[name], 0)


@pytest.mark.parametrize(
    ("name", "trainable", "macs"),
    [("repmlpnet_cifar", 8.3e6, 468e6), ("resmlp_12_cifar", 7.1e6, 1812e6)],
)
def test_the_cifar_study_equals_its_table(name, trainable, macs):
    """RepMLPNet Table 4: base networks, and what each branch adds."""
    plain = kmlp.profile(kmlp.create_model(name, local_kernels=()))
    assert round(plain.trainable / 1e6, 1) == trainable / 1e6
    assert abs(plain.macs / macs - 1) <= 0.005
    added = {}
    for kernels in ((1,), (3,), (1, 3)):
        branched = kmlp.profile(kmlp.create_model(name, local_kernels=kernels))
        added[kernels] = (
            branched.trainable - plain.trainable,
            branched.non_trainable - plain.non_trainable,
        )
    if name == "repmlpnet_cifar":
        assert [v[0] for v in added.values()] == [720, 2640, 3360]
    else:
        # The table counts the norms' moving statistics here.
        assert [sum(v) for v in added.values()] == [60, 156, 216]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(name, ".npz") for name in FILES] + [(name, ".pth") for name in PICKLED],
)
def test_outputs_equal_the_published_ones(name, suffix):
    path = REFERENCE / f"{name}{suffix}"
    arrays, _ = reference(name)
    cases = sorted({key.split("/")[0] for key in arrays if key.startswith("case")})
    for case in cases:
        x = arrays[f"{case}/images"]
        model = kmlp.load_published(build_reference(name, x.shape[1:]), path)
        expected = arrays[f"{case}/outputs"]
        assert relative_error(run(model, x), expected) <= TOLERANCE
        assert relative_error(run(kmlp.merge(model), x), expected) <= TOLERANCE
    model = model_of_case0(name, path, arrays)
    training = run(model, arrays["case0/images"], training=True)
    assert relative_error(training, arrays["case0/outputs_training"]) <= TOLERANCE


def model_of_case0(name, path, arrays):
    model = build_reference(name, arrays["case0/images"].shape[1:])
    return kmlp.load_published(model, path)


@pytest.mark.parametrize("name", FILES)
def test_activations_equal_the_recorded_ones(name):
    arrays, _ = reference(name)
    model = model_of_case0(name, REFERENCE / f"{name}.npz", arrays)
    recorded = {k.rsplit("/", 1)[1]: arrays[k] for k in arrays if "/feature/" in k}
    final_norm = recorded.pop("final_norm", None)
    assert set(recorded) == set(FEATURES[name])
    outputs = {
        feature: model.pyramid_outputs[where]
        if where in model.pyramid_outputs
        else model.get_layer(where).output
        for feature, where in FEATURES[name].items()
    }
    outputs["last"] = model.get_layer("head").input
    values = run(keras.Model(model.inputs, outputs), arrays["case0/images"])
    last = values.pop("last")
    for feature, value in values.items():
        expected = published_layout(recorded[feature], value.shape)
        assert relative_error(value, expected) <= TOLERANCE, feature
    if final_norm is not None:
        value = run(model.get_layer("head").normalize, last)
        expected = published_layout(final_norm, value.shape)
        assert relative_error(value, expected) <= TOLERANCE


def published_layout(array, shape):
    """NCHW or NLC as NHWC; NHWC as it is."""
    if array.ndim == 4 and array.shape != shape:
        array = array.transpose(0, 2, 3, 1)
    return array.reshape(shape)


def test_merged_kernels_equal_the_published_deploy_state():
    arrays, config = reference("repmlpnet_small")
    model = model_of_case0("repmlpnet_small", REFERENCE / "repmlpnet_small.npz", arrays)
    merged = kmlp.merge(model)
    for stage, depth in enumerate(config["num_blocks"]):
        for block in range(depth):
            layer = merged.get_layer(f"stage{stage}_block{block}_channel_perceptron")
            name = f"deploy_state/stages.{stage}.{block}.repmlp_block.fc3"
            for variable, leaf in ((layer.kernel, "weight"), (layer.bias, "bias")):
                expected = arrays[f"{name}.{leaf}"].reshape(variable.shape)
                assert relative_error(variable.numpy(), expected) <= TOLERANCE
    outputs = run(merged, arrays["case0/images"])
    assert relative_error(outputs, arrays["case0/outputs_deploy"]) <= TOLERANCE


def broken(state, how):
    name = "head.weight" if "head.weight" in state else "mlp_head.0.weight"
    if how == "missing":
        del state[name]
        return name
    if how == "surplus":
        state["aux_head.weight"] = np.zeros((2, 2))
        return "aux_head.weight"
    state[name] = state[name][:, :-1]
    return name


@pytest.mark.parametrize("how", ["missing", "surplus", "misshapen"])
@pytest.mark.parametrize("name", FILES)
def test_loading_is_strict(name, how):
    arrays, _ = reference(name)
    model = build_reference(name, arrays["case0/images"].shape[1:])
    before = [keras.ops.convert_to_numpy(w) for w in model.weights]
    state = kmlp.weights.read_state(REFERENCE / f"{name}.npz")
    culprit = broken(state, how)
    state["stem.num_batches_tracked"] = np.zeros(())
    with pytest.raises(ValueError, match="Received") as error:
        kmlp.load_published(model, state)
    assert culprit in str(error.value)
    assert "num_batches_tracked" not in str(error.value)
    if how != "surplus":
        assert "head/dense/kernel" in str(error.value)
    after = [keras.ops.convert_to_numpy(w) for w in model.weights]
    assert all((a == b).all() for a, b in zip(before, after))


def test_loading_passes_over_batch_counters():
    arrays, _ = reference("smlpnet_small")
    model = build_reference("smlpnet_small", arrays["case0/images"].shape[1:])
    state = kmlp.weights.read_state(REFERENCE / "smlpnet_small.npz")
    state["batch_norm.num_batches_tracked"] = np.zeros(())
    kmlp.load_published(model, state)
    outputs = run(model, arrays["case0/images"])
    assert relative_error(outputs, arrays["case0/outputs"]) <= TOLERANCE


def test_loading_names_what_it_cannot_load():
    with pytest.raises(ValueError, match="Received: Functional"):
        kmlp.load_published(
            kmlp.merge(build_reference("resmlp_small", (64, 64, 3))), {}
        )
    unpublished = kmlp.ResMLP(10, (32, 32, 3), depth=1, width=8, local_kernels=(3,))
    with pytest.raises(ValueError, match="never published"):
        kmlp.load_published(unpublished, {})


@pytest.mark.parametrize("name", [name for name in COUNTS if "deploy" in name])
def test_counts_after_locality_injection_equal_the_published_ones(name):
    counts = COUNTS[name]
    ours = {theirs: ours for ours, theirs in PUBLISHED_NAMES.items()}
    with shapes_only():
        model = kmlp.create_model(
            ours[name.removesuffix(" deploy")], locality_injected=True
        )
        profile = kmlp.profile(model)
    assert profile.trainable == counts["trainable"]
    assert profile.non_trainable == counts["non_trainable"]
    assert profile.macs == counts["macs"]
