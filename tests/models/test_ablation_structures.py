"""The forms of the papers' ablations, written out in NumPy."""

import math

import keras
import numpy as np
import pytest
from cases import build, build_reference, images, reference, relative_error, run

import kmlp
from kmlp.pytorch.counterparts import counterpart

TOLERANCE = 1e-5


class Arrays:
    """A model's weights, and the papers' operations over them in float64."""

    def __init__(self, model):
        self.arrays = {
            w.path: keras.ops.convert_to_numpy(w).astype("float64")
            for w in model.weights
        }

    def __call__(self, path):
        return self.arrays[path]

    def batch_norm(self, x, path):
        scale, shift, mean, variance = (
            self(f"{path}/{leaf}")
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift

    def layer_norm(self, x, path, epsilon=1e-5):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon)
        return x * self(f"{path}/gamma") + self(f"{path}/beta")

    def dense(self, x, path):
        return x @ self(f"{path}/kernel") + self.arrays.get(f"{path}/bias", 0)

    def mlp(self, x, path, epsilon=1e-5):
        x = gelu(self.dense(self.layer_norm(x, f"{path}/norm", epsilon), f"{path}/fc1"))
        return self.dense(x, f"{path}/fc2")

    def conv(self, x, path, stride=1):
        """Tap by tap, zeros around; a kernel (k, k, C, 1) is depthwise."""
        kernel = self(f"{path}/kernel")
        size = len(kernel)
        x = padded(x, size // 2)
        rows, columns = (n - size + 1 for n in x.shape[1:3])
        depthwise = kernel.shape[3] == 1 != x.shape[3]
        outputs = 0
        for i in range(size):
            for j in range(size):
                tap = x[:, i : i + rows : stride, j : j + columns : stride]
                taken = kernel[i, j, :, 0] if depthwise else kernel[i, j]
                outputs = outputs + (tap * taken if depthwise else tap @ taken)
        return outputs + self.arrays.get(f"{path}/bias", 0)

    def conv_norm_relu(self, x, path, stride=1):
        x = self.conv(x, f"{path}/conv", stride)
        return np.maximum(self.batch_norm(x, f"{path}/norm"), 0)

    def head(self, x):
        return self.dense(x.mean((1, 2)), "head/dense")


def gelu(x):
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def padded(x, width):
    return np.pad(x, [(0, 0), (width, width), (width, width), (0, 0)])


def max_pool(x):
    x = padded(x, 1)
    rows, columns = (n - 2 for n in x.shape[1:3])
    taps = [(i, j) for i in range(3) for j in range(3)]
    return np.max([x[:, i : i + rows : 2, j : j + columns : 2] for i, j in taps], 0)


def neighbours(x):
    """2×2 neighbours as channels, zeros at the bottom and right."""
    x = np.pad(x, [(0, 0), *((0, n % 2) for n in x.shape[1:3]), (0, 0)])
    parts = [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return np.concatenate(parts, -1)


def merging(arrays, x, path):
    return arrays.dense(
        arrays.layer_norm(neighbours(x), f"{path}/norm"), f"{path}/dense"
    )


def convmlp(model, x):
    arrays = Arrays(model)
    for index in range(3):
        stride = 1 if index else 2
        x = arrays.conv_norm_relu(x, f"tokenizer_conv{index}", stride)
    x = max_pool(x)
    for block in range(model.conv_blocks):
        if model.conv_stage == "plain":
            x = arrays.conv_norm_relu(x, f"conv_block{block}")
        else:
            for part in (1, 2):
                x = x + arrays.mlp(x, f"conv_block{block}_mlp{part}")
    if model.conv_stage == "plain":
        x = max_pool(x)
    else:
        x = merging(arrays, x, "conv_downsample")
    for stage in range(len(model.depths)):
        if stage:
            x = merging(arrays, x, f"stage{stage - 1}_downsample")
        unit = f"stage{stage}_block0"
        x = x + arrays.mlp(x, f"{unit}_mlp1")
        if model.depthwise:
            x = arrays.layer_norm(x, f"{unit}_connect/norm")
            x = arrays.conv(x, f"{unit}_connect/conv")
        x = x + arrays.mlp(x, f"{unit}_mlp2")
    return arrays.head(arrays.layer_norm(x, "head/norm"))


@pytest.mark.parametrize("case", ["convmlp_plain_merge", "convmlp_mlp_merge"])
def test_convmlp_is_the_network_written_out(case):
    model = build(case)
    x = images(model)
    assert relative_error(run(model, x), convmlp(model, x)) <= TOLERANCE


def msmlp(model, x):
    arrays, epsilon = Arrays(model), 1e-6
    for stage in range(len(model.depths)):
        name = f"downsample{stage - 1}" if stage else "patch_embed"
        x = arrays.layer_norm(
            arrays.dense(neighbours(x), f"{name}/dense"), f"{name}/norm", epsilon
        )
        unit = f"stage{stage}_block0"
        y = arrays.dense(x, f"{unit}_project_in")
        width, mixed = -(-y.shape[-1] // 3), 0
        groups = [y[..., :width], y[..., width : 2 * width], y[..., 2 * width :]]
        for path, axis in (("horizontal", 2), ("vertical", 1)):
            outputs = []
            for i, (group, shift) in enumerate(zip(groups, model.shifts)):
                conv = f"{unit}_mix_shift/{path}_{i}"
                if model.order == "shift_mix":
                    group = arrays.conv(np.roll(group, shift, axis), conv)
                else:
                    group = np.roll(arrays.conv(group, conv), shift, axis)
                outputs.append(group)
            mixed = mixed + np.concatenate(outputs, -1)
        y = arrays.dense(mixed, f"{unit}_project_out")
        x = x + arrays.mlp(y, f"{unit}_mlp", epsilon) * arrays(f"{unit}_mlp/gamma")
    pooled = x.mean((1, 2), keepdims=True)
    return arrays.head(arrays.layer_norm(pooled, "head/norm", epsilon))


@pytest.mark.parametrize("order", ["shift_mix", "mix_shift"])
def test_msmlp_with_full_convolutions_is_the_network_written_out(order):
    model = build("msmlp_full_projections", order=order)
    x = images(model)
    assert relative_error(run(model, x), msmlp(model, x)) <= TOLERANCE


def along(arrays, x, path, axis):
    """An FC over one axis, `(out, in)` kernel and a bias per position."""
    kernel, bias = arrays(f"{path}/kernel")[0], arrays(f"{path}/bias")[0]
    return np.moveaxis(np.moveaxis(x, axis, -1) @ kernel.T + bias, -1, axis)


def sparse_mlp(arrays, x, path, *, fusion, axes, identity):
    paths = [x] if identity else []
    width = along(arrays, x, f"{path}/mix_width", 2)
    if axes == "parallel":
        paths += [width, along(arrays, x, f"{path}/mix_height", 1)]
    else:
        paths.append(along(arrays, width, f"{path}/mix_height", 1))
    if fusion == "concat":
        return arrays.dense(np.concatenate(paths, -1), f"{path}/fuse")
    weights = np.ones(len(paths)) if fusion == "sum" else arrays(f"{path}/scale")
    return sum(weight * part for weight, part in zip(weights, paths, strict=True))


def smlpnet(model, x):
    arrays, unit = Arrays(model), "stage0_block0"
    rows, columns = (size // 4 for size in x.shape[1:3])
    x = x.reshape(len(x), rows, 4, columns, 4, 3).transpose(0, 1, 3, 2, 4, 5)
    x = arrays.dense(x.reshape(len(x), rows, columns, 48), "patch_embed/dense")
    y = gelu(arrays.batch_norm(x, f"{unit}_norm/norm"))
    if model.local_mixing:
        y = arrays.conv(y, f"{unit}_depthwise/conv")
        if model.global_mixing:
            y = gelu(arrays.batch_norm(y, f"{unit}_depthwise/norm"))
    if model.global_mixing == "depthwise":
        y = arrays.conv(y, f"{unit}_depthwise2/conv")
    elif model.global_mixing == "positions":
        y = y.reshape(len(y), rows * columns, -1)
        y = gelu(along(arrays, y, f"{unit}_positions1", 1))
        y = along(arrays, y, f"{unit}_positions2", 1).reshape(x.shape)
    elif model.global_mixing:
        options = {key: getattr(model, key) for key in ("fusion", "axes", "identity")}
        y = sparse_mlp(arrays, y, f"{unit}_sparse_mlp", **options)
    x = x + y
    x = x + arrays.mlp(x, f"{unit}_ffn")
    return arrays.head(arrays.batch_norm(x, "head/norm"))


@pytest.mark.parametrize(
    "options",
    [
        {"global_mixing": False},
        {"global_mixing": "depthwise"},
        {"global_mixing": "positions"},
        {"local_mixing": False},
        {"fusion": "sum"},
        {"fusion": "weighted_sum"},
        {"axes": "sequential"},
        {"identity": False},
        {"axes": "sequential", "identity": False},
        {"axes": "sequential", "identity": False, "fusion": "weighted_sum"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_smlpnet_is_the_network_written_out(options):
    arguments = {"input_shape": (16, 24, 3), "depths": (1,), "block_size": None}
    arguments |= {"local_kernels": (), "global_mixing": True, "fusion": "concat"}
    arguments |= {"identity": True, **options}
    model = build("smlpnet_weighted_positions", **arguments)
    x = images(model)
    assert relative_error(run(model, x), smlpnet(model, x)) <= TOLERANCE


@pytest.mark.parametrize("case", ["convmlp_plain_merge", "convmlp_mlp_merge"])
def test_patch_merging_takes_any_size_in_one_model(case):
    anysize = build(case, input_shape=(None, None, 3))
    for size in ((64, 48), (33, 70), (17, 8)):
        fixed = build(case, input_shape=(*size, 3))
        fixed.set_weights(anysize.get_weights())
        x = images(fixed)
        assert relative_error(run(anysize, x), run(fixed, x)) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("convmlp", {"conv_stage": "plain"}),
        ("convmlp", {"conv_stage": "mlp"}),
        ("convmlp", {"downsample": "merge"}),
        ("convmlp", {"depthwise": False}),
        ("msmlp", {"mixing": "full"}),
        ("msmlp", {"projections": True}),
        ("smlpnet", {"local_mixing": False}),
        ("smlpnet", {"global_mixing": False}),
        ("smlpnet", {"global_mixing": "depthwise"}),
        ("smlpnet", {"global_mixing": "positions"}),
        ("smlpnet", {"fusion": "sum"}),
        ("smlpnet", {"fusion": "weighted_sum"}),
        ("smlpnet", {"axes": "sequential"}),
        ("smlpnet", {"identity": False}),
    ],
    ids=str,
)
def test_forms_that_were_never_published_say_so(family, options):
    pytest.importorskip("torch")
    arrays, _ = reference(f"{family}_small")
    prefix = "state/"
    state = {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
    plain = build_reference(f"{family}_small", (64, 64, 3))
    assert kmlp.load_published(plain, state) is plain
    assert counterpart(plain) is not None
    model = build_reference(f"{family}_small", (64, 64, 3), **options)
    (option,) = options
    with pytest.raises(ValueError, match=f"has no such option. Received: {option}="):
        counterpart(model)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"(does not fit|never published).*Received: "):
        kmlp.load_published(model, state)
    assert all((a == b).all() for a, b in zip(model.get_weights(), before))


def test_one_value_for_all_stages_is_one_per_stage():
    arguments = {"input_shape": (32, 32, 3), "width": 8, "depths": (1, 1)}
    for given in (True, (True, True), [1, 1]):
        assert kmlp.SMLPNet(5, global_mixing=given, **arguments).global_mixing is True
    mixed = kmlp.SMLPNet(5, global_mixing=["positions", 0], **arguments)
    assert mixed.global_mixing == ("positions", False)
