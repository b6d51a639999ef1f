"""The PyTorch networks against the reference arrays and the published counts."""

import importlib
import importlib.util
import json
import pathlib
import sys

import numpy as np
import pytest

from kmlp import pytorch
from kmlp.pytorch.timm_resmlp import timm_resmlp
from kmlp.weights.scheme import derived

torch = pytest.importorskip("torch")
flop_counter = importlib.import_module("torch.utils.flop_counter")

REFERENCE = pathlib.Path(__file__).parent / "reference"
COUNTS = json.loads((REFERENCE / "counts.json").read_text())

# MLP-Mixer's oracle is timm itself, in tests/models/test_mixer.py.
FAMILIES = sorted(pytorch.FAMILIES.keys() - {"mlp_mixer"})
CASES = [
    ("convmlp", "case0"),
    ("convmlp", "case1"),
    ("focal", "case0"),
    ("msmlp", "case0"),
    ("repmlpnet", "case0"),
    ("repmlpnet", "case1"),
    ("resmlp", "case0"),
    ("smlpnet", "case0"),
    ("swin", "case0"),
]

# Published name, as `counts.json` has it: our name and what to override.
COUNTED = {
    **{
        f"RepMLPNet-{s}": (f"repmlpnet_{s.lower()}", {})
        for s in ("T224", "T256", "B224", "B256", "D256", "L256")
    },
    **{f"ConvMLP-{s}": (f"convmlp_{s.lower()}", {}) for s in "SML"},
    **{f"MS-MLP-{s}": (f"msmlp_{s.lower()}", {}) for s in "TSB"},
    "MS-MLP-T-2262": ("msmlp_t", {"depths": (2, 2, 6, 2)}),
    "MS-MLP-S-22182": ("msmlp_s", {"depths": (2, 2, 18, 2)}),
    "MS-MLP-B-22182": ("msmlp_b", {"depths": (2, 2, 18, 2)}),
    **{f"sMLPNet-{s}": (f"smlpnet_{s.lower()}", {}) for s in "TSB"},
    "sMLPNet-T*": ("smlpnet_t_a2", {}),
    **{f"resmlp_{n}_224": (f"resmlp_s{n}", {}) for n in (12, 24, 36)},
    "resmlp_big_24_224": ("resmlp_b24", {}),
}
COUNTED |= {
    f"{published} deploy": (name, {"deploy": True})
    for published, (name, _) in COUNTED.items()
    if name.startswith("repmlpnet")
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
}


@pytest.fixture(scope="module")
def reference():
    files = {}

    def load(name):
        if name not in files:
            with np.load(REFERENCE / f"{name}.npz") as arrays:
                files[name] = dict(arrays)
        return files[name]

    return load


def config_of(arrays):
    return json.loads(str(arrays["config"]))


def load_state(network, arrays, prefix="state/"):
    state = {
        name.removeprefix(prefix): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(prefix) and not derived(name)
    }
    network.double().load_state_dict(state, strict=True)
    return network.eval()


def logits(network, images):
    with torch.no_grad():
        return network(torch.from_numpy(images).permute(0, 3, 1, 2).double()).numpy()


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < tolerance


def on_meta(published):
    name, overrides = COUNTED[published]
    with torch.device("meta"):
        return pytorch.build(name, **overrides).eval()


def test_every_case_of_the_reference_files_is_tested(reference):
    found = [
        (family, name.partition("/")[0])
        for family in FAMILIES
        for name in reference(f"{family}_small")
        if name.endswith("/outputs")
    ]
    assert sorted(found) == CASES


@pytest.mark.parametrize(("family", "case"), CASES)
def test_outputs_equal_the_published_ones(reference, family, case):
    arrays = reference(f"{family}_small")
    network = pytorch.build(family, **config_of(arrays))
    load_state(network, arrays)
    actual = logits(network, arrays[f"{case}/images"])
    assert_close(actual, arrays[f"{case}/outputs"])


@pytest.mark.parametrize("family", FAMILIES)
def test_training_outputs_equal_the_published_ones(reference, family):
    arrays = reference(f"{family}_small")
    config = config_of(arrays)
    if family != "repmlpnet":
        config["drop_path_rate"] = 0.0
    network = pytorch.build(family, **config)
    load_state(network, arrays).train()
    actual = logits(network, arrays["case0/images"])
    assert_close(actual, arrays["case0/outputs_training"])


def test_deploy_form_of_repmlpnet_takes_the_merged_state(reference):
    arrays = reference("repmlpnet_small")
    network = pytorch.build("repmlpnet", **config_of(arrays), deploy=True)
    load_state(network, arrays, "deploy_state/")
    actual = logits(network, arrays["case0/images"])
    assert_close(actual, arrays["case0/outputs_deploy"])
    assert_close(actual, arrays["case0/outputs"])


def test_tiles_of_repmlpnet_are_transformed_each_on_its_own(reference):
    arrays = reference("repmlpnet_small")
    network = load_state(pytorch.build("repmlpnet", **config_of(arrays)), arrays)
    block = network.stages[1][0].repmlp_block
    torch.nn.init.zeros_(block.gp.fc2.weight)  # the gate no longer sees its input
    maps = torch.randn(2, 16, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        whole = block(maps)
        for row, column in np.ndindex(2, 3):
            rows = slice(8 * row, 8 * row + 8)
            columns = slice(8 * column, 8 * column + 8)
            tile = block(maps[:, :, rows, columns])
            torch.testing.assert_close(whole[:, :, rows, columns], tile)


needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed"
)


@needs_timm
@pytest.mark.parametrize("mode", ["outputs", "outputs_training"])
def test_timm_runs_the_file_with_its_names(reference, mode):
    arrays = reference("resmlp_small_timm")
    config = config_of(arrays)
    del config["source"]
    network = load_state(timm_resmlp(**config), arrays)
    network.train(mode == "outputs_training")
    assert_close(logits(network, arrays["case0/images"]), arrays[f"case0/{mode}"])


@needs_timm
def test_stub_of_torchvision_is_gone_after_the_import():
    timm_resmlp(img_size=32, embed_dim=8, num_blocks=1, num_classes=2)
    module = sys.modules.get("torchvision")
    assert module is None or module.__file__


def test_timm_missing_is_an_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match="pip install timm"):
        timm_resmlp()


def test_all_counted_networks_and_all_variants_are_compared():
    assert set(COUNTED) == set(COUNTS)
    built = {name for name, overrides in COUNTED.values() if not overrides}
    assert built | set(UNCOUNTED) == set(pytorch.VARIANTS)


@pytest.mark.parametrize("name", UNCOUNTED)
def test_parameters_are_the_published_ones(name):
    with torch.device("meta"):
        network = pytorch.build(name)
    trainable = sum(parameter.numel() for parameter in network.parameters())
    assert trainable == UNCOUNTED[name]


@pytest.mark.parametrize("published", COUNTED)
def test_parameters_and_multiply_adds_are_the_published_ones(published):
    network, counts = on_meta(published), COUNTS[published]
    trainable = sum(parameter.numel() for parameter in network.parameters())
    # PyTorch also counts the batches seen; the published counts leave that out.
    moving = [b for b in network.buffers() if b.dtype.is_floating_point]
    assert trainable == counts["trainable"]
    assert sum(buffer.numel() for buffer in moving) == counts["non_trainable"]

    size = counts["resolution"]
    with flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    assert counter.get_total_flops() == 2 * counts["macs"]


def test_stochastic_depth_drops_whole_branches_in_training_only(reference):
    arrays = reference("convmlp_small")
    config = {**config_of(arrays), "drop_path_rate": 0.9}
    network = load_state(pytorch.build("convmlp", **config), arrays)
    expected = arrays["case0/outputs"]
    assert_close(logits(network, arrays["case0/images"]), expected)
    for module in network.modules():
        module.training = hasattr(module, "rate")
    torch.manual_seed(0)
    dropped = logits(network, arrays["case0/images"])
    assert np.abs(dropped - expected).max() > 1e-3 * np.abs(expected).max()


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="Received: 'resmlp_s13'"):
        pytorch.build("resmlp_s13")
