"""MLP-Mixer, from ResMLP's parts, against timm's."""

import numpy as np
import pytest
from cases import relative_error, run

import kmlp
from kmlp import pytorch
from kmlp.artifacts.source_network import compare
from kmlp.pytorch.counterparts import counterpart
from kmlp.pytorch.timm_resmlp import timm_mlp_mixer
from kmlp.weights.recognition import recognise
from kmlp.weights.renamings import SCHEMES

torch = pytest.importorskip("torch")

TIMM = {"img_size": 48, "patch_size": 8, "num_blocks": 2, "embed_dim": 24}
OURS = {
    "patch_size": 8,
    "width": 24,
    "depth": 2,
    "mixing": "mlp",
    "mixing_width": 12,
    "norm": "layer",
    "layer_scale": None,
    "epsilon": 1e-6,
}


def timm(**arguments):
    try:
        return timm_mlp_mixer(**arguments).eval()
    except ImportError as error:
        pytest.skip(str(error))


def randomized(network):
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator) * 0.3 + 0.1)
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def small():
    """timm's network in small, and its state."""
    network = timm(num_classes=7, **TIMM)
    return network, randomized(network)


def outputs(network, x):
    with torch.no_grad():
        nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        return network.double()(nchw.double()).float().numpy()


def test_outputs_equal_timms(small):
    network, state = small
    model = kmlp.load_published(kmlp.ResMLP(7, (48, 48, 3), **OURS), state)
    # Small values, where the norms' epsilon counts.
    for scale in (1.0, 1e-3):
        x = scale * np.random.default_rng(0).normal(size=(2, 48, 48, 3))
        x = x.astype("float32")
        expected = outputs(network, x)
        network.float()
        for form in (model, kmlp.merge(model)):
            assert relative_error(run(form, x), expected) <= 1e-5


def test_b16_is_timms_mixer_b16():
    network = timm(patch_size=16, num_blocks=12, embed_dim=768)
    shapes = {name: tuple(v.shape) for name, v in network.state_dict().items()}
    model = kmlp.create_model("mlp_mixer_b16")
    profile = kmlp.profile(model)
    assert profile.trainable == sum(p.numel() for p in network.parameters())
    assert round(profile.trainable / 1e6, 2) == 59.88
    assert round(profile.macs / 1e9, 1) == 12.6
    state = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    kmlp.load_published(model, state)  # every array and every variable once
    assert not any(np.any(w) for w in model.get_weights())
    found = recognise(state)
    assert (found.architecture, found.scheme) == ("mlp_mixer_b16", "timm")
    assert found.arguments["input_shape"] == (224, 224, 3)
    published = pytorch.build("mlp_mixer_b16").state_dict()
    assert {name: tuple(v.shape) for name, v in published.items()} == shapes


def test_states_are_told_from_resmlps(small):
    _, state = small
    found = recognise(state)
    assert found.architecture is None
    assert found.family is kmlp.ResMLP
    own = {k: v for k, v in found.structure.items() if k in OURS}
    assert own == OURS
    model = kmlp.load_published(found.build(), state)
    assert model.get_config()["mixing_width"] == 12
    resmlp = kmlp.ResMLP(7, (48, 48, 3), patch_size=8, width=24, depth=2)
    with pytest.raises(ValueError, match=r"seems to be ResMLP\(.*mixing='mlp'"):
        kmlp.load_published(resmlp, state)
    # And the other way round, by the names of either scheme.
    for scheme in SCHEMES[kmlp.ResMLP][:2]:
        named = scheme.theirs([w.path for w in resmlp.weights])
        shapes = pytorch.build(
            "resmlp", img_size=48, patch_size=8, embed_dim=24, depth=2, num_classes=7
        ).state_dict()
        authors = SCHEMES[kmlp.ResMLP][0].theirs(named)
        other = {named[p][0]: shapes[authors[p][0]].numpy() for p in named}
        told = recognise(other)
        assert told.structure["mixing"] == "linear"
        with pytest.raises(ValueError, match="does not fit 'resmlp': it seems to be"):
            kmlp.load_published(kmlp.ResMLP(7, (48, 48, 3), **OURS), other)


def test_conversions_are_checked(small, monkeypatch):
    _, state = small
    model = kmlp.load_published(kmlp.ResMLP(7, (48, 48, 3), **OURS), state)
    scheme = SCHEMES[kmlp.ResMLP][2]
    found = compare(model, state, scheme)
    assert found.difference < 1e-5
    assert found.network == "timm's"

    def missing(**_):
        raise ImportError("timm")

    monkeypatch.setattr("kmlp.artifacts.source_network.timm_mlp_mixer", missing)
    found = compare(model, state, scheme)
    assert found.difference < 1e-5
    assert found.network == "the published"
    bias = model.get_layer("block1_cross_patch").fc1.bias
    bias.assign(np.zeros(bias.shape))
    assert compare(model, state, scheme).difference > 1e-3


def test_the_counterpart_is_refused_for_what_is_no_mixer():
    for change in ({"norm": "batch"}, {"layer_scale": 0.1}, {"activation": "relu"}):
        model = kmlp.ResMLP(7, (48, 48, 3), **{**OURS, **change})
        with pytest.raises(ValueError, match=r"has no such option\. Received: "):
            counterpart(model)
