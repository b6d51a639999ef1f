"""FC kernels over positions, and what Locality Injection does to them."""

import cases
import keras
import numpy as np
import pytest

import kmlp
from kmlp.analysis import injection
from kmlp.analysis.complexity import shapes_only
from kmlp.analysis.injection import COLUMNS, locality
from kmlp.analysis.spatial import kernel_rows, spatial_kernels
from kmlp.layers.layer import host

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SHAPE = (4, 6, 8)
# The layer on a 4×6 map: one kernel or several, norm or none, branches of any shape,
# blocks and axes.
LAYERS = {
    "plain": {"local_kernels": (1, 3)},
    "share-sets": {"share_sets": 4, "local_kernels": (1, 3), "norm": "batch"},
    "oblong": {"share_sets": 2, "local_kernels": ((1, 5), (3, 3)), "norm": "batch"},
    "blocks": {"local_kernels": (3,), "block_size": (2, 3), "use_bias": False},
    "width": {"local_kernels": ((1, 3),), "block_size": (1, 6)},
    "height": {"local_kernels": ((3, 1), (1, 1)), "block_size": (4, 1)},
}


def model_of(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(SHAPE)
    layer = kmlp.layers.SetSharingLinear(name="mix", **LAYERS[name])
    model = keras.Model(inputs, layer(inputs), name=name)
    cases.randomize(model)
    return model


def kernel_of(name):
    (kernel,) = spatial_kernels(model_of(name))
    return kernel


def norm_scale(norm):
    return host(norm.gamma) / np.sqrt(host(norm.moving_variance) + norm.epsilon)


def shifted(layer, share_set, position, grid):
    """Written out: the taps of all branches around an output position."""
    weights = np.zeros(grid)
    for branch in layer.branches:
        taps = host(branch.kernel)[..., share_set]
        scale = norm_scale(branch.normalize)[share_set]
        for i, row in enumerate(taps):
            for j, tap in enumerate(row):
                y = position[0] + i - len(taps) // 2
                x = position[1] + j - len(row) // 2
                if 0 <= y < grid[0] and 0 <= x < grid[1]:
                    weights[y, x] += scale * tap
    return weights


@pytest.mark.parametrize("name", LAYERS)
def test_the_difference_is_the_shifted_convolution(name):
    kernel = kernel_of(name)
    layer = kernel.layer
    injected = injection.Injection(kernel)
    raw = host(layer.kernel)
    for share_set in range(kernel.share_sets):
        for position in np.ndindex(*kernel.grid):
            pair = injected.at(share_set, position)
            local = shifted(layer, share_set, position, kernel.grid)
            np.testing.assert_allclose(pair.after - pair.before, local, **EXACT)
            norm = layer.normalize
            scale = 1.0 if norm is None else norm_scale(norm)[share_set]
            row = raw[share_set, position[0] * kernel.grid[1] + position[1]]
            np.testing.assert_allclose(pair.before.ravel(), scale * row, **EXACT)
            top, left, height, width = pair.footprint
            local[top : top + height, left : left + width] = 0
            assert not local.any()


@pytest.mark.parametrize("name", ["plain", "share-sets", "oblong"])
def test_an_impulse_comes_out_as_the_kernel_says(name):
    """The layer itself, run on maps with a single one, agrees."""
    kernel = kernel_of(name)
    height, width, channels = SHAPE
    impulses = np.zeros((height * width + 1, *SHAPE), "float32")
    for index in range(height * width):
        impulses[index, index // width, index % width] = 1
    outputs = cases.run(kernel.layer, impulses, training=False)
    responses = outputs[:-1] - outputs[-1]  # less what zeros give
    for channel in range(channels):
        for position in ((0, 0), (2, 3), (3, 5)):
            pair = injection.kernel_before_after(
                kernel, channel % kernel.share_sets, position
            )
            actual = responses[(slice(None), *position, channel)].reshape(4, 6)
            np.testing.assert_allclose(actual, pair.after, atol=2e-6)


def test_logarithms_are_over_the_smallest_of_the_whole_matrix():
    kernel = kernel_of("share-sets")
    layer = kernel.layer
    weights = host(layer.kernel)
    weights[1, 0, 23] = 0  # far from the footprint of (0, 0): no weight after either
    weights[3, 23, 0] = 1e-9
    layer.kernel.assign(weights)
    injected = injection.Injection(kernel)
    merged = host(layer.merged().kernel)
    floor = 1e-9 * norm_scale(layer.normalize)[3]
    assert injected.smallest == pytest.approx(floor, rel=1e-6)
    pair = injected.at(1, (0, 0))
    assert np.isnan(pair.log_before[3, 5])
    assert np.isnan(pair.log_after[3, 5])
    assert np.isnan(pair.log_after).sum() == 1
    expected = np.log(np.abs(merged[1, 0, :23]) / floor)
    np.testing.assert_allclose(pair.log_after.ravel()[:23], expected, atol=1e-5)
    # Where no branch reaches, the same weight has the same logarithm.
    np.testing.assert_array_equal(pair.log_after[2:], pair.log_before[2:])


def test_what_lies_far_away_and_still_weighs_more_is_counted():
    after = np.full((4, 5), 0.5)
    after[1:4, 0:2] = [[-9, 8], [7, -6], [-1, 3]]  # the footprint; its least is 1
    after[0, 4], after[3, 3], after[0, 0], after[2, 2] = -2, 1.5, 0.9, 1
    pair = injection.KernelPair("mix", 0, (2, 0), (1, 0, 3, 2), after, after, 0.5)
    assert pair.reaching == 2
    assert pair.inside_after == pytest.approx(34 / (34 + 5.4 + 0.5 * 10), rel=1e-12)


# Position, kernel, grid -> what of the kernel lies on the grid.
FOOTPRINTS = [
    ((6, 6), (3, 3), (16, 16), (5, 5, 3, 3)),
    ((0, 0), (3, 3), (16, 16), (0, 0, 2, 2)),
    ((15, 3), (5, 3), (16, 16), (13, 2, 3, 3)),
    ((0, 5), (1, 3), (1, 6), (0, 4, 1, 2)),
    ((1, 1), (7, 7), (3, 4), (0, 0, 3, 4)),
]


@pytest.mark.parametrize(("position", "size", "grid", "expected"), FOOTPRINTS)
def test_the_footprint_ends_at_the_border(position, size, grid, expected):
    assert injection.clipped(position, size, grid) == expected


@pytest.mark.parametrize("name", ["oblong", "blocks", "width"])
def test_shares_are_those_of_all_pairs(name):
    kernel = kernel_of(name)
    injected = injection.Injection(kernel)
    places = [
        injected.at(s, p)
        for s in range(kernel.share_sets)
        for p in np.ndindex(*kernel.grid)
    ]
    covered = [pair.footprint[2] * pair.footprint[3] for pair in places]
    chance, *shares = injected.inside()
    assert chance == pytest.approx(np.mean(covered) / np.prod(kernel.grid), rel=1e-12)
    for when, share in zip(("before", "after"), shares, strict=True):
        sums = [np.abs(getattr(pair, when)).sum() for pair in places]
        inside = [getattr(pair, f"inside_{when}") for pair in places]
        expected = np.dot(sums, inside) / np.sum(sums)
        assert share == pytest.approx(expected, rel=1e-12)


def test_equal_weights_lie_inside_by_chance_and_branches_alone_altogether():
    kernel = kernel_of("share-sets")
    layer = kernel.layer
    layer.kernel.assign(np.ones(layer.kernel.shape))
    chance, before, _ = injection.Injection(kernel).inside()
    assert before == pytest.approx(chance, rel=1e-12)
    # 3×3 on 4×6: (3·4 - 2)(3·6 - 2) pairs of positions of 24²
    assert chance == pytest.approx(160 / 576, rel=1e-12)
    layer.kernel.assign(np.zeros(layer.kernel.shape))
    _, before, after = injection.Injection(kernel).inside()
    assert before == 0
    assert after == pytest.approx(1, rel=1e-12)


def test_the_table_has_a_row_per_layer_with_branches():
    model = cases.build("repmlpnet")
    table = locality(model)
    assert [row.depth for row in table.layers] == [1, 2, 3, 4]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table.rows()]
    first = rows[0]
    assert first["layer"] == "stage0_block0_channel_perceptron"
    assert (first["height"], first["width"], first["share_sets"]) == (8, 16, 1)
    assert (first["footprint_height"], first["footprint_width"]) == (3, 3)
    chance = (3 * 8 - 2) * (3 * 16 - 2) / 128**2
    assert first["inside_by_chance"] == pytest.approx(chance, rel=1e-12)
    assert f"{first['inside_after']:.1%}" in str(table)


# Architecture, arguments -> the layer that is drawn unless another is asked for.
DEFAULTS = {
    ("repmlpnet_d256",): ("stage2_block9_channel_perceptron", (16, 16), 16, (6, 6)),
    ("repmlpnet_t224",): ("stage2_block5_channel_perceptron", (14, 14), 16, (6, 6)),
    ("repmlpnet_cifar",): ("stage1_block5_channel_perceptron", (8, 8), 32, (4, 4)),
    ("resmlp_s12", (3,)): ("block9_cross_patch/mix", (14, 14), 1, (6, 6)),
    ("smlpnet_t", (3,)): ("stage2_block9_sparse_mlp/mix_width", (1, 14), 1, (0, 6)),
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_the_papers_layer_and_position_or_the_next_best(key):
    name, *local = key
    arguments = {"local_kernels": local[0]} if local else {}
    with shapes_only():
        model = kmlp.create_model(name, **arguments)
    kernel = injection.default_kernel(injection.injected_kernels(model))
    position = injection.default_position(kernel.grid)
    found = (kernel.name, kernel.grid, kernel.share_sets, position)
    assert found == DEFAULTS[key]


# Case -> grids of its kernels over positions, in order.
KERNELS = {
    "repmlpnet": [(8, 16), (4, 8), (4, 8), (2, 4)],
    "repmlpnet_partitioned": [(4, 8), (2, 4)],
    "resmlp": [(4, 6)] * 2,
    "resmlp_mixer": [(3, 4)] * 2,
}


@pytest.mark.parametrize("form", ["train form", "merged"])
@pytest.mark.parametrize("case", KERNELS)
def test_kernels_over_positions_are_found(case, form):
    model = cases.build(case)
    kernels = spatial_kernels(kmlp.merge(model) if form == "merged" else model)
    assert [kernel.grid for kernel in kernels] == KERNELS[case]


def test_rows_are_images_of_the_map_around_the_middle():
    model = cases.build("repmlpnet")  # 8×16 positions in the first stage
    kernels = spatial_kernels(model)
    rows = kernel_rows(kernels[1], share_set=3, central=2)  # 4×8
    matrix = kmlp.merge(model).get_layer(kernels[1].name).kernel
    matrix = host(matrix)[3]
    assert rows.images.shape == (2, 2, 4, 8)
    assert rows.what == "central 2×2 positions"
    assert (rows.label, rows.share_set) == ("stage1_block0", 3)
    for r, c in np.ndindex(2, 2):
        for i, j in np.ndindex(4, 8):
            weight = matrix[(1 + r) * 8 + (3 + c), i * 8 + j]
            assert rows.images[r, c, i, j] == pytest.approx(weight, abs=1e-6)
    assert kernel_rows(kernels[0], central=None).images.shape == (8, 16, 8, 16)
    # Of few rows all are taken, of many the middle.
    assert kernel_rows(kernels[1], central=6).images.shape == (4, 6, 4, 8)


def test_rows_of_an_axis_are_its_matrix():
    kernels = spatial_kernels(cases.build("smlpnet"))
    width, height = kernels[:2]
    assert (width.label, height.label) == (
        "stage0_block0 width",
        "stage0_block0 height",
    )
    matrix = width.matrix()[0]
    images = kernel_rows(width).images
    assert images.shape == (len(matrix), 1, 1, len(matrix))
    np.testing.assert_array_equal(images[:, 0, 0], matrix)
    matrix = height.matrix()[0]
    images = kernel_rows(height).images
    assert images.shape == (1, len(matrix), len(matrix), 1)
    np.testing.assert_array_equal(images[0, :, :, 0], matrix)


def test_rows_of_a_mixing_mlp_are_its_hidden_units():
    fc1, fc2 = spatial_kernels(cases.build("resmlp_mixer"))
    hidden = host(fc1.layer.kernel).shape[0]
    reads = kernel_rows(fc1, central=3)
    assert reads.what == f"first 9 of {hidden} hidden units, what they read"
    np.testing.assert_array_equal(
        reads.images.reshape(9, 12), host(fc1.layer.kernel)[:9]
    )
    writes = kernel_rows(fc2, central=3)
    assert writes.what == f"first 9 of {hidden} hidden units, where they write"
    np.testing.assert_array_equal(
        writes.images.reshape(9, 12), host(fc2.layer.kernel).T[:9]
    )
    everything = kernel_rows(fc1, central=None).images
    spare = everything.shape[0] * everything.shape[1] - hidden
    assert np.isnan(everything[-1, -1]).all() == bool(spare)
    assert np.isfinite(everything).sum() == hidden * 12


def test_a_class_token_reads_one_image():
    *_, kernel = spatial_kernels(cases.build("resmlp_class_mlp"))
    rows = kernel_rows(kernel)
    assert rows.what == "what the class token reads"
    assert rows.images.shape == (1, 1, *kernel.grid)


def test_what_cannot_be_shown_is_named():
    model = model_of("share-sets")
    (kernel,) = spatial_kernels(model)
    injected = injection.Injection(kernel)
    refused = [
        (lambda: injected.at(4, (0, 0)), r"share-sets 0 to 3.*Received: share_set=4"),
        (lambda: injected.at(0, (4, 0)), r"row 0 to 3, column 0 to 5.*\(4, 0\)"),
        (lambda: injected.at(0, (-1, 0)), r"Received: position=\(-1, 0\)"),
        (lambda: kernel_rows(kernel, 4), "share-sets 0 to 3"),
        (lambda: locality(kmlp.merge(model)), "merged already.*'share-sets'"),
        (lambda: locality(cases.build("resmlp")), "--local-kernels 1,3.*plot rows"),
        (lambda: locality(cases.build("convmlp")), "RepMLPNet, ResMLP, sMLPNet"),
        (lambda: spatial_kernels(cases.build("msmlp")), "fully connected over"),
    ]
    for action, message in refused:
        with pytest.raises(ValueError, match=message):
            action()
