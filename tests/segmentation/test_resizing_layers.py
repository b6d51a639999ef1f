"""Resizing, pooling and the feature pyramid against PyTorch's definitions."""

import numpy as np
import pytest
from keras import ops

from kmlp.layers import FeaturePyramid
from kmlp.layers.feature_pyramid import (
    AdaptivePooling,
    Resize,
    resize_bilinear,
    upsample_nearest,
)

torch = pytest.importorskip("torch")
functional = torch.nn.functional
DRAWS = np.random.default_rng(3)


def maps(*shape):
    return DRAWS.normal(size=shape).astype("float32")


def torch_maps(x):
    return torch.tensor(x).permute(0, 3, 1, 2)


def host(x):
    return ops.convert_to_numpy(x)


def nhwc(x):
    return x.detach().permute(0, 2, 3, 1).numpy()


SIZES = [((4, 6), (8, 12)), ((5, 7), (10, 13)), ((3, 3), (7, 5)), ((6, 4), (3, 2))]


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_nearest(size, target):
    x, like = maps(2, *size, 3), maps(2, *target, 1)
    wanted = functional.interpolate(torch_maps(x), size=target, mode="nearest")
    assert np.array_equal(host(upsample_nearest(x, like)), nhwc(wanted))


@pytest.mark.parametrize(("size", "target"), SIZES)
def test_bilinear(size, target):
    x = maps(2, *size, 3)
    wanted = functional.interpolate(
        torch_maps(x), size=target, mode="bilinear", align_corners=False
    )
    found = host(resize_bilinear(x, target))
    assert np.abs(found - nhwc(wanted)).max() < 1e-6
    layer = host(Resize()([x, maps(2, *target, 1)]))
    assert np.array_equal(found, layer)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(6, 12), (7, 5), (4, 3)])
def test_adaptive_pooling(bins, size):
    x = maps(2, *size, 3)
    wanted = functional.adaptive_avg_pool2d(torch_maps(x), bins)
    assert np.abs(host(AdaptivePooling(bins)(x)) - nhwc(wanted)).max() < 1e-6


@pytest.mark.parametrize(
    ("extra", "extra_from"), [(0, "input"), (2, "input"), (2, "output"), (1, "pool")]
)
def test_feature_pyramid(extra, extra_from):
    inputs = [maps(1, 9, 7, 4), maps(1, 5, 4, 6), maps(1, 3, 2, 8)]
    layer = FeaturePyramid(5, extra=extra, extra_from=extra_from)
    found = [host(x) for x in layer(inputs)]

    def conv(x, layer, stride=1):
        kernel = torch.tensor(host(layer.conv.kernel)).permute(3, 2, 0, 1)
        bias = torch.tensor(host(layer.conv.bias))
        return functional.conv2d(
            x, kernel, bias, stride=stride, padding=kernel.shape[-1] // 2
        )

    for part in layer._flatten_layers():
        if hasattr(part, "bias"):
            part.bias.assign(DRAWS.normal(size=part.bias.shape))
    found = [host(x) for x in layer(inputs)]
    inner = [conv(torch_maps(x), c) for x, c in zip(inputs, layer.lateral)]
    for i in (1, 0):
        inner[i] = inner[i] + functional.interpolate(
            inner[i + 1], size=inner[i].shape[2:], mode="nearest"
        )
    wanted = [conv(x, c) for x, c in zip(inner, layer.smooth)]
    if extra_from == "pool":
        wanted += [functional.max_pool2d(wanted[-1], 1, stride=2)]
    else:
        x = torch_maps(inputs[-1]) if extra_from == "input" else wanted[-1]
        for c in layer.further:
            x = conv(x, c, stride=2)
            wanted.append(x)
    assert len(found) == len(wanted) == 3 + extra
    shapes = layer.compute_output_shape([x.shape for x in inputs])
    for x, y, shape in zip(found, wanted, shapes):
        assert x.shape == tuple(shape)
        assert np.abs(x - nhwc(y)).max() < 2e-5
