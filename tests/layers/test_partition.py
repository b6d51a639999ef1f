"""Maps that the blocks do not tile: padded, transformed block by block, cropped."""

import keras
import numpy as np
import pytest
from cases import randomize, relative_error, run

import kmlp
from kmlp.layers import CrossPatch, SetSharingLinear, SparseMLP
from kmlp.layers.layer import host
from kmlp.layers.partition import Partition

TOLERANCE = 1e-5
CHANNELS = 4
# Map and block: smaller and larger than it, cut along one axis, both and none.
SIZES = [
    ((5, 7), (4, 4)),
    ((3, 2), (4, 4)),
    ((3, 9), (4, 3)),
    ((8, 5), (4, 4)),
    ((5, 6), (1, 4)),
    ((5, 6), (8, 1)),
    ((5, 6), (3, 1)),
    ((1, 1), (2, 3)),
    ((8, 4), (4, 4)),
    ((4, 6), (4, 6)),
]


def built(layer, size):
    layer.build((None, *size, CHANNELS))
    randomize(layer)
    return layer


def maps(size, batch=2):
    shape = (batch, *size, CHANNELS)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def tiles(size, block):
    """Slices of the tiles of a map; the last ones end where the map does."""
    for top in range(0, size[0], block[0]):
        for left in range(0, size[1], block[1]):
            yield (
                slice(top, min(top + block[0], size[0])),
                slice(left, min(left + block[1], size[1])),
            )


def fully_connected(x, kernel, bias, block):
    """Every tile by the part of the kernel that its positions have."""
    outputs, sets = np.zeros(x.shape), len(kernel)
    for rows, columns in tiles(x.shape[1:3], block):
        tile = x[:, rows, columns]
        h, w = tile.shape[1:3]
        for c in range(x.shape[3]):
            weights = kernel[c % sets].reshape(*block, *block)[:h, :w, :h, :w]
            mixed = np.einsum("abij,nij->nab", weights, tile[..., c])
            outputs[:, rows, columns, c] = mixed + bias[c % sets].reshape(block)[:h, :w]
    return outputs


def convolved(x, kernel, block):
    """Every tile by a depthwise convolution that sees zeros around it."""
    outputs, (kh, kw, sets) = np.zeros(x.shape), kernel.shape
    for rows, columns in tiles(x.shape[1:3], block):
        tile = x[:, rows, columns]
        h, w = tile.shape[1:3]
        margins = ((0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0))
        padded = np.pad(tile, margins)
        for c in range(x.shape[3]):
            for i, j in np.ndindex(kh, kw):
                taps = kernel[i, j, c % sets] * padded[:, i : i + h, j : j + w, c]
                outputs[:, rows, columns, c] += taps
    return outputs


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize(("size", "block"), SIZES)
def test_every_tile_is_mixed_on_its_own(size, block, sets):
    layer = built(SetSharingLinear(sets, block_size=block), size)
    assert layer.kernel.shape == (sets, block[0] * block[1], block[0] * block[1])
    x = maps(size)
    expected = fully_connected(x, host(layer.kernel), host(layer.bias), block)
    assert relative_error(run(layer, x), expected) <= TOLERANCE
    outputs = layer(keras.Input((*size, CHANNELS)))
    assert outputs.shape == (None, *size, CHANNELS)


@pytest.mark.parametrize(("size", "block"), SIZES[:4])
@pytest.mark.parametrize("training", [False, True])
def test_norms_and_branches_see_the_map_and_no_padding(size, block, training):
    layer = SetSharingLinear(
        2, block_size=block, local_kernels=(1, 3), use_bias=False, norm="batch"
    )
    layer = built(layer, size)
    x = maps(size, batch=3)
    no_bias = np.zeros((2, block[0] * block[1]))
    terms = [(fully_connected(x, host(layer.kernel), no_bias, block), layer.normalize)]
    for branch in layer.branches:
        terms.append((convolved(x, host(branch.kernel), block), branch.normalize))
    expected = sum(
        normalized(values, norm, training).reshape(x.shape) for values, norm in terms
    )
    assert relative_error(run(layer, x, training=training), expected) <= TOLERANCE
    if not training:
        assert relative_error(run(layer.merged(), x), expected) <= TOLERANCE


def normalized(values, norm, training):
    """BatchNorm over the share-sets, channel c in set c mod 2."""
    values = values.reshape(-1, CHANNELS // 2, 2)
    mean, variance = host(norm.moving_mean), host(norm.moving_variance)
    if training:
        mean, variance = values.mean(axis=(0, 1)), values.var(axis=(0, 1))
    deviation = np.sqrt(variance + norm.epsilon)
    return (values - mean) / deviation * host(norm.gamma) + host(norm.beta)


@pytest.mark.parametrize("norm", ["affine", "batch", "layer", None])
@pytest.mark.parametrize(("size", "block"), SIZES)
def test_padding_carries_no_shift_of_the_norm_before(size, block, norm):
    """Of the train form and of the inference form, into which the shift folds."""
    layer = CrossPatch(norm=norm, layer_scale=0.5, block_size=block, local_kernels=(3,))
    layer = built(layer, size)
    x = maps(size)
    normed = x if norm is None else run(layer.normalize, x)
    kernel, bias = layer.mix.equivalent_kernel(host)
    expected = host(layer.gamma) * fully_connected(normed, kernel, bias, block)
    assert relative_error(run(layer, x), expected) <= TOLERANCE
    merged = layer.merged()
    assert merged.folded
    assert relative_error(run(merged, x), expected) <= TOLERANCE


@pytest.mark.parametrize(("size", "block"), SIZES)
def test_each_axis_of_a_sparse_mlp_is_padded_for_itself(size, block):
    layer = built(SparseMLP(block_size=block), size)
    x = maps(size)
    mixed = [x]
    for axis, shape in (("mix_width", (1, block[1])), ("mix_height", (block[0], 1))):
        mix = getattr(layer, axis)
        mixed.append(fully_connected(x, host(mix.kernel), host(mix.bias), shape))
    expected = np.concatenate(mixed, axis=-1) @ host(layer.fuse.kernel)
    assert relative_error(run(layer, x), expected) <= TOLERANCE


def test_whole_blocks_are_neither_padded_nor_cropped(monkeypatch):
    def padded(*_):
        raise AssertionError("padded")

    monkeypatch.setattr(keras.ops, "pad", padded)
    for size, block in SIZES:
        partition = Partition(
            (None, *size, CHANNELS), block, columns_as_channels=False, name="mix"
        )
        whole = all(s % b == 0 for s, b in zip(size, block))
        assert partition.padded != whole
        if whole:
            blocks = partition.split(keras.ops.convert_to_tensor(maps(size)))
            assert partition.valid(blocks) is blocks
            joined = keras.ops.convert_to_numpy(partition.join(blocks))
            assert (joined == maps(size)).all()
        else:
            with pytest.raises(AssertionError, match="padded"):
                partition.split(keras.ops.convert_to_tensor(maps(size)))


def test_multiply_adds_are_those_of_whole_blocks():
    layer = SetSharingLinear(2, block_size=(4, 4), local_kernels=(3,))
    layer.build((None, 5, 7, CHANNELS))
    # Two by two tiles of 16 positions.
    assert layer.multiply_adds((None, 5, 7, CHANNELS)) == 64 * CHANNELS * (16 + 9)


def test_the_inference_form_grows_a_shift_for_the_map_only_where_it_must():
    for size, shape in (((8, 4), (4, 4)), ((5, 7), (5, 7))):
        layer = built(CrossPatch(block_size=(4, 4)), size)
        assert layer.merged().shift.shape == (*shape, CHANNELS)


@pytest.mark.parametrize(
    "make",
    [
        lambda shape: kmlp.RepMLPNet(
            5,
            shape,
            depths=(1, 1, 1),
            widths=(4, 8, 8),
            share_sets=(1, 2, 4),
            block_size=(8, 4),
        ),
        lambda shape: kmlp.SMLPNet(
            5, shape, width=4, depths=(1, 1, 1), block_size=(8, 4)
        ),
        lambda shape: kmlp.ResMLP(
            5, shape, patch_size=4, width=4, depth=1, block_size=(8, 4)
        ),
    ],
)
def test_any_size_has_a_pyramid_of_its_own_strides(make):
    for height, width in ((1, 1), (7, 30), (33, 64)):
        model = make((height, width, 3))
        assert model.output_shape == (None, 5)
        for level, tensor in model.pyramid_outputs.items():
            stride = 2 ** int(level[1:])
            expected = (-(-height // stride), -(-width // stride))
            assert tensor.shape[1:3] == expected


def test_a_block_that_covers_the_image_may_halve_unevenly():
    arguments = {"depths": (1, 1), "widths": (4, 4), "share_sets": (1, 1)}
    model = kmlp.RepMLPNet(5, (20, 28, 3), block_size=(5, 7), **arguments)
    kernels = [w.shape for w in model.weights if w.path.endswith("perceptron/kernel")]
    assert kernels == [(1, 35, 35), (1, 12, 12)]
    with pytest.raises(ValueError, match=r"multiple of 2 where .* 5x7 .*\(5, 3\)"):
        kmlp.RepMLPNet(5, (20, 28, 3), block_size=(5, 3), **arguments)
