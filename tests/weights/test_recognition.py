"""What states seem to be, and what errors say of it."""

import keras
import numpy as np
import pytest
from cases import build_reference, reference, relative_error, run
from published_states import MMCLS, MMPRETRAIN, renamed, state_of, with_counters

import kmlp
from kmlp import pytorch
from kmlp.analysis.complexity import shapes_only
from kmlp.weights import recognise

# File, key, scheme, tables of names.
STATES = [
    ("repmlpnet_small", None, "published", ()),
    ("repmlpnet_small", "deploy_state", "published", ()),
    ("repmlpnet_small", None, "mmpretrain", (MMPRETRAIN,)),
    ("repmlpnet_small", "deploy_state", "mmcls", (MMPRETRAIN, MMCLS)),
    ("resmlp_small", None, "published", ()),
    ("resmlp_small_timm", None, "timm", ()),
    ("convmlp_small", None, "published", ()),
    ("msmlp_small", None, "published", ()),
    ("smlpnet_small", None, "published", ()),
    ("swin_small", None, "published", ()),
    ("focal_small", None, "published", ()),
]

TOLD = {
    "repmlpnet": {
        *("depths", "widths", "share_sets", "local_kernels", "patch_size"),
        *("gate_reduction", "global_perceptron", "mlp_ratio", "locality_injected"),
        "input_shape",
    },
    "resmlp": {
        *("patch_size", "width", "depth", "mlp_ratio", "mixing", "input_shape"),
    },
    "convmlp": {"stem_width", "conv_blocks", "widths", "depths", "mlp_ratios"},
    "msmlp": {"width", "depths", "regions", "mlp_ratio", "patch_size"},
    "smlpnet": {"width", "depths", "mlp_ratio", "patch_size", "input_shape"},
    "swin": {
        *("patch_size", "width", "depths", "heads", "window_size", "mlp_ratio"),
    },
    "focal": {
        *("width", "depths", "heads", "window_size", "focal_windows", "focal_levels"),
        *("expansion", "mlp_ratio", "patch_size", "input_shape"),
    },
}


@pytest.mark.parametrize(("name", "key", "scheme", "tables"), STATES)
def test_reference_states_tell_their_networks(name, key, scheme, tables):
    arrays, _ = reference(name)
    x = arrays["case0/images"]
    state = with_counters(renamed(state_of(name, key), *tables))
    seems = recognise(state)
    assert seems.architecture is None
    assert seems.scheme == scheme
    # Every option that the shapes tell is the one that the file's configuration has.
    injected = {"locality_injected": True} if key else {}
    expected = build_reference(name, x.shape[1:], **injected).get_config()
    for option, value in seems.structure.items():
        assert plain(value) == plain(expected[option]), option
    told = TOLD[name.split("_")[0]] - ({"local_kernels"} if key else set())
    assert seems.structure.keys() == told | {"num_classes"}
    changes = {} if "input_shape" in told else {"input_shape": x.shape[1:]}
    model = kmlp.load_published(seems.build(**changes), state)
    assert relative_error(run(model, x), arrays["case0/outputs"]) <= 1e-5


def plain(value):
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


def shapes_of(network):
    """A state that takes no memory."""
    zero = np.float32(0)
    return {n: np.broadcast_to(zero, t.shape) for n, t in network.state_dict().items()}


def published_state(name, **overrides):
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        return shapes_of(pytorch.build(name, **overrides))


@pytest.mark.parametrize("name", pytorch.VARIANTS)
def test_every_published_variant_is_recognised(name, monkeypatch):
    monkeypatch.setattr(keras.Model, "__init__", None)  # no model is built
    size = 256 if name.endswith("256") else 224
    any_size = name.startswith(("convmlp", "msmlp", "swin"))
    sized = {} if any_size else {"input_shape": (size, size, 3)}
    for deploy in (False, True) if name.startswith("repmlpnet") else (None,):
        overrides = {} if deploy is None else {"deploy": deploy}
        injected = {} if deploy is None else {"locality_injected": deploy}
        seems = recognise(published_state(name, **overrides))
        assert seems.architecture == name
        assert seems.arguments == {"num_classes": 1000, **sized, **injected}
        whose = "timm" if name == "mlp_mixer_b16" else "published"
        assert str(seems) == f"{name} ({whose} names)"


def test_the_cifar_study_and_other_sizes_are_recognised():
    study = published_state(
        "repmlpnet",
        channels=(128, 256),
        hs=(16, 8),
        ws=(16, 8),
        num_blocks=(6, 6),
        sharesets_nums=(8, 32),
        patch_size=2,
        num_class=100,
    )
    seems = recognise(study)
    assert seems.architecture == "repmlpnet_cifar"
    assert seems.arguments["input_shape"] == (32, 32, 3)
    assert seems.arguments["num_classes"] == 100
    seems = recognise(published_state("resmlp_s24", img_size=288, num_classes=7))
    assert seems.architecture == "resmlp_s24"
    assert seems.arguments == {"num_classes": 7, "input_shape": (288, 288, 3)}


def test_heads_tell_what_is_there():
    state = state_of("msmlp_small")
    assert recognise(state).arguments["num_classes"] == 10
    state = {n: a for n, a in state.items() if not n.startswith("head.")}
    assert recognise(state).arguments["num_classes"] == 0
    assert "include_top" not in recognise(state).arguments
    state = {n: a for n, a in state.items() if not n.startswith("norm.")}
    assert recognise(state).arguments["include_top"] is False


def test_sizes_are_told_where_shapes_tell_them():
    state = published_state(
        "repmlpnet",
        channels=(8, 16),
        hs=(4, 2),
        ws=(8, 4),
        num_blocks=(1, 1),
        sharesets_nums=(1, 4),
        reparam_conv_k=(3, 5),
    )
    seems = recognise(state)
    assert "input_shape" not in seems.arguments  # 32 tokens: 4x8, 2x16, …
    assert seems.arguments["local_kernels"] == (3, 5)
    state = state_of("smlpnet_small")
    for name, array in state.items():
        if "proj_h" in name:  # along the width
            state[name] = np.zeros([2 * s if s > 1 else s for s in array.shape])
    assert recognise(state).arguments["input_shape"] == (64, 128, 3)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"fc.weight": np.zeros((2, 2)), "layer1.0.conv1.weight": np.zeros(3)},
        {"head.weight": np.zeros((2, 2)), "head.bias": np.zeros(2)},
        # A vision transformer shares most of ResMLP's names.
        {
            "patch_embed.proj.weight": np.zeros((8, 3, 4, 4)),
            "patch_embed.proj.bias": np.zeros(8),
            "blocks.0.attn.qkv.weight": np.zeros((24, 8)),
            "blocks.0.mlp.fc1.weight": np.zeros((32, 8)),
            "norm.weight": np.zeros(8),
            "head.weight": np.zeros((10, 8)),
        },
        # Names of a family in impossible shapes.
        {name: np.zeros(()) for name in state_of("resmlp_small")},
        {name: np.zeros((0, 0, 0, 0)) for name in state_of("repmlpnet_small")},
    ],
)
def test_other_states_are_told_as_such(state):
    with pytest.raises(ValueError, match=r"no family that kmlp knows.*Received: \d"):
        recognise(state)


# The model, the state and what the message must and must not say.
MISFITS = {
    "another variant": (
        lambda: kmlp.create_model("resmlp_s12"),
        lambda: published_state("resmlp_s24"),
        ["'resmlp_s12'", "resmlp_s24 (published names)", "with depth=24", "142 more"],
        ["num_classes", "Missing"],
    ),
    "another family": (
        lambda: kmlp.create_model("resmlp_s12"),
        lambda: published_state("convmlp_s"),
        ["convmlp_s (published names)", "Missing from the state (", "Surplus"],
        ["build the model with"],
    ),
    "another size": (
        lambda: kmlp.create_model("repmlpnet_t256", depths=(1, 1, 1, 1)),
        lambda: published_state("repmlpnet_t224", num_blocks=(1, 1, 1, 1)),
        ["input_shape=(224, 224, 3)", "kmlp.resize()", "Of another shape"],
        ["Missing", "Surplus", "depths=(1, 1, 1, 1), input"],
    ),
    "no family": (
        lambda: kmlp.create_model("resmlp_s12"),
        lambda: {f"layer.{n}": np.zeros(3) for n in range(1000)},
        ["no family that kmlp knows", "Surplus in the state (1000)", "998 more"],
        ["seems"],
    ),
    "without its ends": (
        lambda: build_reference("resmlp_small", (64, 64, 3)),
        lambda: {n: a for n, a in state_of("resmlp_small").items() if "blo" in n},
        ["Missing from the state (6)", "patch_embed.proj.bias", "1 more"],
        ["seems", "no family"],
    ),
    "without its head": (
        lambda: build_reference("resmlp_small", (64, 64, 3)),
        lambda: {
            name: array
            for name, array in state_of("resmlp_small").items()
            if not name.startswith(("head.", "norm."))
        },
        ["model with include_top=False", "Missing from the state (4)", "head/dense"],
        ["num_classes"],
    ),
    "partitioned, and a gap": (
        lambda: build_reference("repmlpnet_small", (128, 64, 3)),
        lambda: {
            n: a for n, a in state_of("repmlpnet_small").items() if "prebn1" not in n
        },
        ["stages.0.0.prebn1.bias (our stage0_block0_norm/beta)", "15 more"],
        ["seems", "input_shape"],
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_errors_say_what_the_state_seems_to_be(case):
    model, state, words, others = MISFITS[case]
    with shapes_only():
        model = model()
    with pytest.raises(ValueError, match=r"Received: \d+ arrays$") as error:
        kmlp.load_published(model, state())
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 1000
    for word in words:
        assert word in message, message
    for word in others:
        assert word not in message, message
