"""Our models against live PyTorch networks, at sizes the reference files lack."""

import numpy as np
import pytest
from cases import randomize, relative_error, run

import kmlp
from kmlp import pytorch
from kmlp.pytorch.timm_resmlp import timm_resmlp

torch = pytest.importorskip("torch")

TOLERANCE = 1e-5

# Name, oracle's arguments, our arguments.
NETWORKS = {
    "repmlpnet": (
        {
            "channels": (8, 16),
            "hs": (4, 2),
            "ws": (8, 4),
            "num_blocks": (1, 2),
            "sharesets_nums": (2, 8),
            "reparam_conv_k": (1, 3, 5),
            "num_class": 7,
        },
        lambda: kmlp.RepMLPNet(
            7,
            (32, 96, 3),
            widths=(8, 16),
            depths=(1, 2),
            share_sets=(2, 8),
            local_kernels=(1, 3, 5),
            block_size=(4, 8),
        ),
    ),
    "convmlp": (
        {
            "blocks": (1, 1, 2),
            "dims": (12, 20, 28),
            "mlp_ratios": (3, 2, 2),
            "channels": 8,
            "n_conv_blocks": 3,
            "num_classes": 7,
        },
        lambda: kmlp.ConvMLP(
            7,
            (71, 45, 3),
            stem_width=8,
            conv_blocks=3,
            widths=(12, 20, 28),
            depths=(1, 1, 2),
            mlp_ratios=(3, 2, 2),
        ),
    ),
}


def torch_state(network, seed=0):
    """Random statistics, in place."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point() and value.ndim <= 1:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5 + 0.5)
    return {k: v.numpy() for k, v in network.state_dict().items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_a_live_network(name):
    arguments, ours = NETWORKS[name]
    network = pytorch.build(name, **arguments).eval()
    model = kmlp.load_published(ours(), torch_state(network))
    shape = (2, *model.inputs[0].shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    with torch.no_grad():
        nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        expected = network.double()(nchw.double()).numpy()
    assert relative_error(run(model, x), expected) <= TOLERANCE
    assert relative_error(run(kmlp.merge(model), x), expected) <= TOLERANCE


def test_resmlp_equals_timm():
    arguments = {"img_size": 48, "patch_size": 8, "num_blocks": 2, "embed_dim": 24}
    try:
        network = timm_resmlp(num_classes=7, mlp_ratio=4, **arguments).eval()
    except ImportError as error:
        pytest.skip(str(error))
    model = kmlp.ResMLP(7, (48, 48, 3), patch_size=8, width=24, depth=2)
    randomize(model)
    kmlp.load_published(model, torch_state(network))
    x = np.random.default_rng(0).normal(size=(2, 48, 48, 3)).astype("float32")
    with torch.no_grad():
        nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        expected = network.double()(nchw.double()).numpy()
    assert relative_error(run(model, x), expected) <= TOLERANCE
