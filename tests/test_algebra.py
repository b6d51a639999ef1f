"""The equations of merging against literal computation."""

import keras
import numpy as np
import pytest

from kmlp import algebra

TOLERANCE = 1e-12


def depthwise_convolution(image, kernel):
    """Same-padded depthwise correlation, written out."""
    (height, width, _), (kh, kw, _) = image.shape, kernel.shape
    padded = np.pad(image, ((kh // 2,) * 2, (kw // 2,) * 2, (0, 0)))
    return sum(
        padded[i : i + height, j : j + width] * kernel[i, j]
        for i in range(kh)
        for j in range(kw)
    )


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 6), (2, 1)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3), (1, 7)])
def test_conv_to_fc_is_the_convolved_identity(grid, size):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(*size, 2))
    length = grid[0] * grid[1]
    identity = np.eye(length).reshape(length, *grid, 1).repeat(2, axis=-1)
    # Column `in` of set `s` is the convolution of the in-th unit image (Eq. 13).
    columns = [depthwise_convolution(image, kernel) for image in identity]
    expected = np.stack(columns).reshape(length, length, 2).transpose(2, 1, 0)
    assert np.abs(algebra.conv_to_fc(kernel, grid) - expected).max() <= TOLERANCE
    tensor = keras.ops.convert_to_tensor(kernel.astype("float32"))
    actual = keras.ops.convert_to_numpy(algebra.conv_to_fc(tensor, grid))
    assert np.abs(actual - expected).max() <= 1e-6


@pytest.mark.parametrize("grid", [(3, 5), (4, 4)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_conv_to_fc_of_channels_is_the_convolution(grid, size, groups):
    """Maps are flattened as (channel, row, column), group by group."""
    random = np.random.default_rng(0)
    inputs, outputs, (height, width) = 4, 8, grid
    kernel = random.normal(size=(*size, inputs // groups, outputs))
    image = random.normal(size=(height, width, inputs))
    expected = np.zeros((height, width, outputs))
    for out in range(outputs):
        first = out // (outputs // groups) * (inputs // groups)
        seen = image[..., first : first + inputs // groups]
        maps = depthwise_convolution(seen, kernel[..., out])
        expected[..., out] = maps.sum(-1)

    def flat(x):
        return x.transpose(2, 0, 1).reshape(groups, -1)

    matrices = algebra.conv_to_fc(kernel, grid, groups)
    found = np.einsum("goi,gi->go", matrices, flat(image))
    assert np.abs(found - flat(expected)).max() <= TOLERANCE
    tensor = keras.ops.convert_to_tensor(kernel.astype("float32"))
    actual = keras.ops.convert_to_numpy(algebra.conv_to_fc(tensor, grid, groups))
    assert np.abs(actual - matrices).max() <= 1e-6


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
@pytest.mark.parametrize("padding", [None, [(0, 0), (0, 0)], [(0, 1), (2, 1)]])
@pytest.mark.parametrize("size", [(3, 3), (1, 2)])
def test_conv_to_fc_with_strides_padding_and_dilation(size, padding, dilation, strides):
    random = np.random.default_rng(0)
    kernel, image = random.normal(size=(*size, 2)), random.normal(size=(5, 7, 2))
    pads = padding or [(k // 2, k - 1 - k // 2) for k in size]
    padded = np.pad(image, (*pads, (0, 0)))
    reach = [d * (k - 1) for k, d in zip(size, dilation)]
    rows, columns = (
        range(0, n - r, s) for n, r, s in zip(padded.shape, reach, strides)
    )
    expected = [
        (
            padded[i:, j:][: reach[0] + 1, : reach[1] + 1] * dilated(kernel, dilation)
        ).sum((0, 1))
        for i in rows
        for j in columns
    ]
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    matrices = algebra.conv_to_fc(kernel, (5, 7), **options)
    found = np.einsum("soi,is->os", matrices, image.reshape(35, 2))
    assert np.abs(found - expected).max() <= TOLERANCE


def dilated(kernel, dilation):
    """The kernel with zeros between its taps."""
    sizes = [d * (k - 1) + 1 for k, d in zip(kernel.shape, dilation)]
    found = np.zeros((*sizes, kernel.shape[-1]))
    found[:: dilation[0], :: dilation[1]] = kernel
    return found


@pytest.mark.parametrize("target", [(3, 3), (5, 3), (7, 7)])
def test_padded_kernels_compute_the_same_map(target):
    random = np.random.default_rng(0)
    image, kernel = random.normal(size=(6, 5, 2)), random.normal(size=(3, 1, 2))
    padded = algebra.pad_kernel(kernel, target)
    assert padded.shape == (*target, 2)
    difference = depthwise_convolution(image, padded) - depthwise_convolution(
        image, kernel
    )
    assert np.abs(difference).max() <= TOLERANCE


@pytest.mark.parametrize("has_bias", [False, True])
def test_folding_an_affine_map_before_and_after(has_bias):
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(7, 3)), random.normal(size=(3, 4))
    bias = random.normal(size=4) if has_bias else None
    linear = x @ kernel + (0 if bias is None else bias)
    scale, shift = random.normal(size=(2, 4))
    folded, folded_bias = algebra.fold_after(kernel, bias, scale, shift)
    expected = linear * scale + shift
    assert np.abs(x @ folded + folded_bias - expected).max() <= TOLERANCE

    scale, shift = random.normal(size=(2, 3))
    folded, folded_bias = algebra.fold_before(kernel, bias, scale, shift)
    expected = (x * scale + shift) @ kernel + (0 if bias is None else bias)
    assert np.abs(x @ folded + folded_bias - expected).max() <= TOLERANCE


@pytest.mark.parametrize("has_bias", [False, True])
def test_folding_a_norm_over_share_sets(has_bias):
    random = np.random.default_rng(0)
    x, kernel = random.normal(size=(2, 5, 1)), random.normal(size=(2, 5, 5))
    bias = random.normal(size=(2, 5)) if has_bias else None
    scale, shift = random.normal(size=(2, 2))
    linear = kernel @ x + (0 if bias is None else bias[..., None])
    expected = linear * scale[:, None, None] + shift[:, None, None]
    folded, folded_bias = algebra.fold_after_sets(kernel, bias, scale, shift)
    assert folded_bias.shape == (2, 5)
    actual = folded @ x + folded_bias[..., None]
    assert np.abs(actual - expected).max() <= TOLERANCE


def test_batch_norm_affine():
    random = np.random.default_rng(0)
    gamma, beta, mean, x = random.normal(size=(4, 6))
    variance = random.uniform(0.1, 2, size=6)
    scale, shift = algebra.batch_norm_affine(gamma, beta, mean, variance, 1e-3)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    assert np.abs(x * scale + shift - expected).max() <= TOLERANCE
