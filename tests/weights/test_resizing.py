"""One checkpoint at other sizes: kernels interpolated, or kept for blocks."""

import keras
import numpy as np
import pytest
import shipped
from cases import CASES, build, images, long, relative_error, run, spread

import kmlp
from kmlp import algebra
from kmlp.layers import SetSharingLinear
from kmlp.layers.layer import host
from kmlp.preprocessing import Preprocessing
from kmlp.weights.grid_resizing import RESOLUTIONS

LENGTHS = [(1, 4), (2, 3), (4, 7), (7, 4), (8, 12), (12, 8), (14, 16), (5, 1)]
WAYS = list(RESOLUTIONS)
# Cases with spatial kernels.
GRIDS = [
    name
    for name, (family, _) in CASES.items()
    if family in (kmlp.RepMLPNet, kmlp.ResMLP, kmlp.SMLPNet)
]


def mixing(model):
    return [la for la in model._flatten_layers() if isinstance(la, SetSharingLinear)]


def values(model):
    return {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}


def test_linear_matrices_worked_by_hand():
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert np.abs(algebra.resize_matrix(2, 4) - expected).max() < 1e-15
    # Shrunk to half, a triangle four cells wide: 1, 3, 3, 1, cut off at the ends.
    expected = np.array([[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]])
    assert np.abs(algebra.resize_matrix(4, 2) - expected).max() < 1e-15


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(("source", "target"), LENGTHS)
def test_matrices_are_pytorchs_antialiased_resize(source, target, method):
    torch = pytest.importorskip("torch")
    matrix = algebra.resize_matrix(source, target, method)
    assert matrix.shape == (target, source)
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-12
    assert (algebra.resize_matrix(source, source, method) == np.eye(source)).all()
    units = torch.eye(source, dtype=torch.float64)[None, None]
    resized = torch.nn.functional.interpolate(
        units,
        size=(target, source),
        mode={"linear": "bilinear", "cubic": "bicubic"}[method],
        align_corners=False,
        antialias=True,
    )
    assert np.abs(matrix - resized[0, 0].numpy()).max() < 1e-6


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("pixels", [(32, 37), (37, 32), (32, 33), (37, 75), (33, 8)])
def test_a_ramp_over_the_image_stays_the_ramp(pixels, method):
    """Where the last cell of 4 pixels reaches beyond the image, others keep places."""
    cells = [-(-size // 4) for size in pixels]
    # The ramp's value at a cell's centre is where that is, as a share of the image.
    own, new = ((np.arange(n) + 0.5) * 4 / size for n, size in zip(cells, pixels))
    matrix = algebra.resize_matrix(*cells, method, pixels[0] / pixels[1])
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-12
    # As far from both ends as the filter is wide.
    reach = 4 * max(pixels[0] / pixels[1], 1) * {"linear": 1, "cubic": 2}[method]
    inside = (new * pixels[0] > reach) & (new * pixels[0] < 4 * cells[0] - reach)
    close = {True: 1e-12, False: 0.03}[pixels[0] < pixels[1]]  # antialiasing wobbles
    assert np.abs(matrix @ own - new)[inside].max(initial=0) < close
    assert inside.sum() > 3 or pixels[1] == 8


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize(
    ("source", "target"), [((3, 4), (5, 7)), ((6, 4), (4, 6)), ((1, 5), (1, 8))]
)
def test_a_resized_kernel_resizes_mixes_and_resizes_back(source, target, method):
    random = np.random.default_rng(0)
    kernel = random.normal(size=(2, source[0] * source[1], source[0] * source[1]))
    x = random.normal(size=target)

    def resized(x, size):
        rows, columns = (algebra.resize_matrix(*n, method) for n in zip(x.shape, size))
        return rows @ x @ columns.T

    actual = algebra.resize_kernel(kernel, source, target, method) @ x.ravel()
    for mixed, weights in zip(actual, kernel):
        small = (weights @ resized(x, source).ravel()).reshape(source)
        assert relative_error(mixed, resized(small, target).ravel()) < 1e-12
    bias = random.normal(size=(2, source[0] * source[1]))
    for actual, b in zip(algebra.resize_map(bias, source, target, method), bias):
        expected = resized(b.reshape(source), target).ravel()
        assert relative_error(actual, expected) < 1e-12


@pytest.mark.parametrize("target", [(4, 4), (5, 3), (7, 9), (2, 2)])
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_constants_stay_constant(target, method):
    """Under a kernel that keeps them: each output is a mean of the inputs."""
    kernel = np.random.default_rng(0).uniform(size=(3, 16, 16))
    kernel /= kernel.sum(axis=2, keepdims=True)
    constant = algebra.resize_kernel(kernel, (4, 4), target, method).sum(axis=2)
    assert np.abs(constant - 1).max() < 1e-6


@pytest.mark.parametrize(("method", "bound"), [("linear", 0.08), ("cubic", 0.03)])
def test_up_and_down_again_is_close(method, bound):
    """For a kernel that varies slowly over its positions, as shares of a grid do."""
    grid = (np.arange(8) + 0.5) / 8
    weights = np.exp(-2 * (grid[:, None] - grid) ** 2)
    kernel = np.einsum("ac,bd->abcd", weights, weights).reshape(1, 64, 64)
    for target in ((9, 9), (12, 10), (16, 16)):
        up = algebra.resize_kernel(kernel, (8, 8), target, method)
        back = algebra.resize_kernel(up, target, (8, 8), method)
        assert relative_error(back, kernel) < bound, target
        # A position weighs as much less as there are more of them.
        assert abs(up.mean() * len(up[0]) / kernel.mean() / 64 - 1) < 0.02


@pytest.mark.parametrize("way", ["interpolate", "partition"])
@pytest.mark.parametrize("case", spread(CASES))
def test_an_equal_size_gives_equal_weights(case, way):
    model = build(case)
    twin = kmlp.resize(model, model.input_shape[1:], way)
    assert type(twin) is type(model)
    assert twin is not model
    expected, actual = values(model), values(twin)
    assert actual.keys() == expected.keys()
    assert all((actual[name] == expected[name]).all() for name in actual)
    assert not {id(w) for w in twin.weights} & {id(w) for w in model.weights}


@pytest.mark.parametrize("size", [(37, 43), long((96, 64)), long((16, 81))])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["repmlpnet", "resmlp_local", "smlpnet_local"])
def test_only_what_knows_positions_changes(case, way, size):
    model = build(case)
    before = values(model)
    trained = model.input_shape[1:3] if case != "smlpnet_local" else (16, 32)
    twin = kmlp.resize(model, (*size, 3), way)
    outputs = run(twin, images(twin))
    assert outputs.shape == (2, 10)
    assert np.isfinite(outputs).all()
    assert all((before[name] == value).all() for name, value in values(model).items())
    spatial = set()
    for old, new in zip(mixing(model), mixing(twin), strict=True):
        grids = old.partition.block_size, new.partition.block_size
        spatial |= {w.path for w in (old.kernel, old.bias) if w is not None}
        if way == "partition":
            assert grids[0] == grids[1]
            assert (host(old.kernel) == host(new.kernel)).all()
            continue
        assert new.partition.tiles[0] == 1 or grids[1][0] == 1
        assert not new.partition.padded
        # Of the image's sizes, not of the grids': a last patch may reach beyond.
        steps = [o / n for o, n in zip(trained, size)]
        how = (*grids, RESOLUTIONS[way], steps)
        expected = algebra.resize_kernel(host(old.kernel), *how)
        assert relative_error(host(new.kernel), expected) < 1e-6
        if old.bias is not None:
            expected = algebra.resize_map(host(old.bias), *how)
            assert relative_error(host(new.bias), expected) < 1e-6
    after = values(twin)
    assert after.keys() == before.keys()
    for name in before.keys() - spatial:
        assert (before[name] == after[name]).all(), name


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("case", ["repmlpnet", "resmlp", "smlpnet"])
def test_a_constant_image_is_what_it_was(case, way):
    """Where every kernel keeps constants, size makes no difference to them."""
    overrides = {"local_kernels": ()} if case == "repmlpnet" else {}
    model = build(case, **overrides)
    for layer in mixing(model):
        kernel = np.abs(host(layer.kernel))
        layer.kernel.assign(kernel / kernel.sum(axis=2, keepdims=True))
        if layer.bias is not None:
            layer.bias.assign(np.full(layer.bias.shape, 0.3))
    for layer in model.layers:
        if layer.name.endswith("_depthwise"):  # it sees the border
            kernel = host(layer.conv.kernel)
            layer.conv.kernel.assign(
                np.where(np.arange(9).reshape(3, 3, 1, 1) == 4, kernel, 0)
            )
    pixels = np.random.default_rng(0).normal(size=(2, 1, 1, 3)).astype("float32")
    expected = run(model, np.broadcast_to(pixels, (2, *model.input_shape[1:])))
    for size in ((64, 96, 3), (16, 80, 3), (48, 32, 3)):
        twin = kmlp.resize(model, size, way)
        actual = run(twin, np.broadcast_to(pixels, (2, *size)))
        assert relative_error(actual, expected) < 1e-5


@pytest.mark.parametrize(("way", "side", "least"), [
    ("interpolate", 48, 45), ("interpolate_cubic", 48, 45), ("interpolate", 28, 60),
    ("partition", 48, 30),
])  # fmt: skip
def test_a_trained_network_knows_larger_photographs(way, side, least):
    """Nothing is trained again; a tenth of them is named by chance."""
    images, _ = shipped.photos()
    larger = keras.ops.image.resize(images, (side, side), antialias=True)
    twin = kmlp.resize(shipped.network(), (side, side, 3), way)
    assert shipped.top1(run(twin, host(larger))) >= least


@pytest.mark.parametrize("case", ["repmlpnet", "resmlp_local"])
def test_parted_images_of_equal_tiles_are_what_the_tile_is(case):
    model = build(case)
    x = images(model)
    height, width = model.input_shape[1:3]
    twin = kmlp.resize(model, (2 * height, 3 * width, 3), "partition")
    actual = run(twin, np.tile(x, (1, 2, 3, 1)))
    assert relative_error(actual, run(model, x)) < 1e-5


@pytest.mark.parametrize("case", ["convmlp", "msmlp", "msmlp_swin", "swin"])
def test_families_of_any_size_keep_all_weights(case):
    model = build(case)
    x = images(model)
    for way in WAYS:
        for shape in ((None, None, 3), (52, 33, 3)):
            twin = kmlp.resize(model, shape, way)
            assert twin.input_shape[1:] == shape
            before, after = values(model), values(twin)
            assert all((before[name] == after[name]).all() for name in before)
    anysize = kmlp.resize(model, (None, None, 3))
    assert relative_error(run(anysize, x), run(model, x)) < 1e-5


@pytest.mark.parametrize("case", GRIDS)
def test_resized_models_merge_and_are_saved(case, tmp_path):
    way = "partition" if "local" in case else "interpolate"
    twin = kmlp.resize(build(case), (44, 36, 3), way)
    x = images(twin)
    expected = run(twin, x)
    assert relative_error(run(kmlp.merge(twin), x), expected) <= 1e-5
    twin.save(tmp_path / "twin.keras")
    assert (run(keras.models.load_model(tmp_path / "twin.keras"), x) == expected).all()


def test_a_trained_grid_that_does_not_halve():
    """Interpolated to 37 pixels it is 10x10, then 5x5; blocks of it cannot lie so."""
    arguments = {"depths": (1, 1, 1), "widths": (4, 4, 4), "share_sets": (1, 1, 1)}
    model = kmlp.RepMLPNet(5, (32, 32, 3), **arguments)
    odd = kmlp.resize(model, (37, 37, 3))
    assert [la.partition.block_size for la in mixing(odd)] == [(10, 10), (5, 5), (3, 3)]
    larger = kmlp.resize(odd, (74, 35, 3), "partition")
    grids = [la.partition.block_size for la in mixing(larger)]
    assert grids == [(12, 10), (6, 5), (3, 3)]
    even = kmlp.resize(odd, (48, 48, 3))
    assert even.block_size is None
    assert [la.partition.block_size for la in mixing(even)] == [
        (12, 12),
        (6, 6),
        (3, 3),
    ]


def test_a_trained_block_is_what_is_interpolated():
    model = build("repmlpnet_partitioned")  # blocks of 4x8 tokens in 8x16
    twin = kmlp.resize(model, (24, 40, 3))
    for old, new in zip(mixing(model), mixing(twin)):
        grids = old.partition.block_size, new.partition.block_size
        expected = algebra.resize_kernel(host(old.kernel), *grids)
        assert relative_error(host(new.kernel), expected) < 1e-6
    assert [la.partition.block_size for la in mixing(twin)] == [(6, 10), (3, 5)]


@pytest.mark.parametrize("way", ["interpolate", "partition"])
@pytest.mark.parametrize(
    "overrides",
    [
        {"include_top": False},
        {"num_classes": 0},
        {"dtype": "mixed_bfloat16"},
        {"dtype": "float16"},
        {"name": "mine"},
        {"head_activation": "softmax", "drop_path_rate": 0.1},
    ],
)
def test_configuration_and_precision_are_kept(overrides, way):
    model = build("repmlpnet", **{"num_classes": 10, **overrides})
    twin = kmlp.resize(model, (48, 32, 3), way)
    changed = {"input_shape": (48, 32, 3), "block_size": twin.block_size}
    assert twin.get_config() == {**model.get_config(), **changed}
    assert twin.output_shape == (
        (None, *twin.pyramid_outputs["P4"].shape[1:])
        if model.include_top is False
        else model.output_shape
    )
    assert {w.dtype for w in twin.weights} == {w.dtype for w in model.weights}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_stays_frozen(way):
    model = build("smlpnet")
    model.get_layer("patch_embed").trainable = False
    model.get_layer("stage1_block0_sparse_mlp").mix_height.trainable = False
    twin = kmlp.resize(model, (48, 64, 3), way)
    before, after = ({w.path: w.trainable for w in m.weights} for m in (model, twin))
    assert before == after
    assert not all(after.values())
    assert [w.path for w in twin.trainable_weights] == [
        w.path for w in model.trainable_weights
    ]
    model.trainable = False
    assert not kmlp.resize(model, (48, 64, 3)).trainable_weights


def test_preprocessing_goes_along():
    model = build("resmlp")
    names = tuple("abcdefghij")
    model.preprocessing = Preprocessing(image_size=32, test_crop=0.9, class_names=names)
    model.weights_source = {"tag": "fb_in1k"}
    square = kmlp.resize(model, (64, 64, 3))
    assert square.preprocessing.image_size == 64
    assert square.preprocessing.test_crop == 0.9
    assert square.class_names == names
    assert square.weights_source == model.weights_source
    # Only squares are ever prepared.
    oblong = kmlp.resize(model, (64, 80, 3)).preprocessing
    assert (oblong.image_size, oblong.class_names) == (None, names)
    assert model.preprocessing.image_size == 32


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: kmlp.resize(m, (64, 64, 3), "crop"), ["interpolate", "'crop'"]),
        (
            lambda m: kmlp.resize(kmlp.merge(m), (64, 64, 3)),
            ["before merging", "'resmlp"],
        ),
        (
            lambda m: kmlp.resize(keras.Sequential([m], name="wrapped"), (64, 64, 3)),
            ["backbone", "'wrapped'", "Sequential"],
        ),
        (lambda m: kmlp.resize("resmlp_s12", (64, 64, 3)), ["'resmlp_s12', a str"]),
        (lambda m: kmlp.resize(m, (64, 7, 3)), ["8x8", "(64, 7, 3)"]),
        (lambda m: kmlp.resize(m, (None, None, 3)), ["known height"]),
        (lambda m: kmlp.resize(m, (64, 64)), ["(height, width, channels)"]),
        (lambda m: kmlp.resize(m, (64, 64, 1)), ["3 channels", "(64, 64, 1)"]),
    ],
)
def test_bad_arguments(call, words):
    with pytest.raises(ValueError, match="Received") as error:
        call(build("resmlp"))
    message = str(error.value)
    assert "\n" not in message.strip()
    for word in words:
        assert word in message
