"""RepMLPNet on sizes that its blocks do not tile, against the PyTorch network."""

import keras
import numpy as np
import pytest
from cases import relative_error, run

import kmlp
from kmlp import pytorch

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def filled_up(x, multiples):
    """Zeros at the bottom and right, up to multiples."""
    bottom, right = (-size % m for size, m in zip(x.shape[2:], multiples))
    return functional.pad(x, (0, right, 0, bottom))


def block_on_any_map(block, x):
    """The published block tile by tile, with the gate of the map itself."""
    height, width = x.shape[2:]
    gate, pooled = block.gp, block.gp(x)
    block.gp = torch.nn.Module()
    block.gp.forward = lambda _: 1.0
    mixed = block(filled_up(x, block.map_shape[1:]))
    block.gp = gate
    return mixed[:, :, :height, :width] * pooled


def on_any_size(network, x, patch_size):
    """The published network where every map is filled up for what works on it."""
    pyramid = []
    x = network.conv_embedding(filled_up(x, (patch_size, patch_size)))
    for index, stage in enumerate(network.stages):
        for unit in stage:
            x = x + block_on_any_map(unit.repmlp_block, unit.prebn1(x))
            x = x + unit.ffn_block(unit.prebn2(x))
        pyramid.append(x.permute(0, 2, 3, 1).numpy())
        if index < len(network.embeds):
            x = network.embeds[index](filled_up(x, (2, 2)))
    return network.head(network.head_norm(x).mean(dim=(2, 3))).numpy(), pyramid


@pytest.mark.parametrize("size", [(40, 52), (64, 96), (9, 70), (17, 23)])
def test_repmlpnet_at_any_size(size):
    arguments = {
        "num_blocks": (1, 2),
        "reparam_conv_k": (1, 3, 5),
        "sharesets_nums": (2, 8),
        "num_class": 7,
    }
    network = pytorch.build(
        "repmlpnet", channels=(8, 16), hs=(4, 2), ws=(8, 4), **arguments
    ).eval()
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.is_floating_point() and value.ndim <= 1:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5 + 0.5)
    model = kmlp.RepMLPNet(
        7,
        (*size, 3),
        widths=(8, 16),
        depths=(1, 2),
        share_sets=(2, 8),
        local_kernels=(1, 3, 5),
        block_size=(4, 8),
    )
    kmlp.load_published(model, {k: v.numpy() for k, v in network.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    with torch.no_grad():
        nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        expected, pyramid = on_any_size(network.double(), nchw.double(), 4)
    for form in (model, kmlp.merge(model)):
        assert relative_error(run(form, x), expected) <= 1e-5
        levels = run(keras.Model(form.inputs, dict(form.pyramid_outputs)), x)
        for actual, level in zip(levels.values(), pyramid, strict=True):
            assert relative_error(actual, level) <= 1e-5
