"""The tables of names: complete, one to one, and the same read either way."""

import pytest
from cases import REFERENCE, build_reference, reference
from published_states import MMCLS, MMPRETRAIN, renamed, state_of

from kmlp.weights.renamings import SCHEMES
from kmlp.weights.scheme import Scheme, derived

# File, key of its state, naming scheme by place, and how its names come about.
STATES = {
    "repmlpnet": ("repmlpnet_small", None, 0, ()),
    "repmlpnet injected": ("repmlpnet_small", "deploy_state", 0, ()),
    "mmpretrain": ("repmlpnet_small", None, 1, (MMPRETRAIN,)),
    "mmpretrain injected": ("repmlpnet_small", "deploy_state", 1, (MMPRETRAIN,)),
    "mmcls": ("repmlpnet_small", None, 2, (MMPRETRAIN, MMCLS)),
    "resmlp": ("resmlp_small", None, 0, ()),
    "timm": ("resmlp_small_timm", None, 1, ()),
    "convmlp": ("convmlp_small", None, 0, ()),
    "msmlp": ("msmlp_small", None, 0, ()),
    "smlpnet": ("smlpnet_small", None, 0, ()),
    "swin": ("swin_small", None, 0, ()),
    "focal": ("focal_small", None, 0, ()),
}


@pytest.mark.parametrize("case", STATES)
def test_every_name_has_one_variable_and_back(case):
    file, key, place, tables = STATES[case]
    arrays, _ = reference(file)
    overrides = {"locality_injected": True} if key else {}
    model = build_reference(file, arrays["case0/images"].shape[1:], **overrides)
    state = renamed(state_of(file, key), *tables)
    state = {name: array for name, array in state.items() if not derived(name)}
    scheme = SCHEMES[type(model)][place]
    depths = getattr(model, "depths", None)
    paths = [variable.path for variable in model.weights]
    theirs = scheme.theirs(paths, depths)
    assert sorted(name for name, _ in theirs.values()) == sorted(state)
    assert {name: path for path, (name, _) in theirs.items()} == scheme.ours(
        state, depths
    )


def test_mmpretrains_names_are_those_of_its_modules():
    """Module by module, as `RepMLPNet` and `LinearClsHead` define them."""
    state = renamed(state_of("repmlpnet_small"), MMPRETRAIN)
    norm = ("bias", "running_mean", "running_var", "weight")
    unit = {
        "ffn_block.ffn_fc1.bn": norm,
        "ffn_block.ffn_fc1.conv": ("weight",),
        "ffn_block.ffn_fc2.bn": norm,
        "ffn_block.ffn_fc2.conv": ("weight",),
        "norm1": norm,
        "norm2": norm,
        "repmlp_block.fc3": ("weight",),
        "repmlp_block.fc3_bn": norm,
        "repmlp_block.gp.conv1.conv": ("bias", "weight"),
        "repmlp_block.gp.conv2.conv": ("bias", "weight"),
        "repmlp_block.repconv1.bn": norm,
        "repmlp_block.repconv1.conv": ("weight",),
        "repmlp_block.repconv3.bn": norm,
        "repmlp_block.repconv3.conv": ("weight",),
    }
    modules = {
        "backbone.patch_embed.projection": ("weight",),
        "backbone.patch_embed.norm": norm,
        "backbone.final_norm": norm,
        "head.fc": ("bias", "weight"),
    }
    for stage in range(3):
        modules[f"backbone.downsample_layers.{stage}.conv"] = ("weight",)
        modules[f"backbone.downsample_layers.{stage}.bn"] = norm
    for block in ("0.0", "1.0", "2.0", "2.1", "3.0"):
        modules |= {f"backbone.stages.{block}.{m}": p for m, p in unit.items()}
    expected = {f"{m}.{p}" for m, parts in modules.items() for p in parts}
    assert set(state) == expected


def test_fields_stand_for_numbers_and_return_as_the_same():
    rows = [("a{x}_{y}/local_{k}x{k}", "b.{y}.{x}.conv{k}", "dense")]
    scheme = Scheme("mine", lambda depths: rows)
    found = scheme.theirs(["a1_22/local_3x3/kernel"])
    assert found["a1_22/local_3x3/kernel"][0] == "b.22.1.conv3.weight"
    assert scheme.ours(["b.22.1.conv3.bias"]) == {
        "b.22.1.conv3.bias": "a1_22/local_3x3/bias"
    }
    for path in ("a1_22/local_3x5/kernel", "a1_x/local_3x3/kernel", "a1/kernel"):
        assert not scheme.theirs([path])
    for name in ("bx22.1.conv3.weight", "b.22.1.conv3.gamma", "b.22.1.conv", "conv3"):
        assert not scheme.ours([name])


def test_all_reference_files_are_read():
    files = {file for file, *_ in STATES.values()}
    assert files == {path.stem for path in REFERENCE.glob("*_small*.npz")}
