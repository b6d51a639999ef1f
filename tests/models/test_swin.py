"""Swin: windows of maps of any size, against plain arithmetic and PyTorch."""

import keras
import numpy as np
import pytest
from cases import REFERENCE, images, randomize, relative_error, run

import kmlp
from kmlp import pytorch
from kmlp.layers import WindowAttention
from kmlp.layers.layer import host
from kmlp.pytorch.timm_resmlp import timm_module
from kmlp.weights.scheme import derived

torch = pytest.importorskip("torch")

TOLERANCE = 1e-5
# Tokens: tiled, padded, covered by a window along one axis or both, a single one.
SIZES = [(14, 14), (7, 7), (5, 5), (4, 14), (10, 17), (15, 6), (8, 8), (1, 1), (1, 9)]


def attention(size, shift, heads=2, channels=8, window=7):
    layer = WindowAttention(heads, window, shift=shift)
    layer.build((None, *size, channels))
    randomize(layer)
    return layer


def tokens(size, channels=8):
    random = np.random.default_rng(1)
    return random.normal(size=(2, *size, channels)).astype("float32")


def plain_attention(layer, x):
    """Query by query in float64, each with the keys that it sees by definition.

    Windows are never made smaller here: a map that one covers is padded, and what is
    padded is not seen.
    """
    n, *size, channels = x.shape
    window, heads = layer.window_size, layer.heads
    norm, table = layer.normalize, host(layer.relative_position_bias_table)
    x = x.astype("float64")
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + norm.epsilon)
    x = x * host(norm.gamma) + host(norm.beta)
    covered = [s <= window for s in size]
    shift = [0 if c else layer.shift for c in covered]
    length = [-(-s // window) * window for s in size]
    x = np.pad(x, [(0, 0), *((0, t - s) for s, t in zip(size, length)), (0, 0)])
    qkv = x @ host(layer.qkv.kernel) + host(layer.qkv.bias)
    qkv = qkv.reshape(n, *length, 3, heads, channels // heads)
    places = list(np.ndindex(*length))

    def seen(i, j):
        for a in range(2):
            if covered[a] and j[a] >= size[a]:
                return False
            # Windows of the rolled map; its two ends are no neighbours.
            p, q = ((place[a] - shift[a]) % length[a] for place in (i, j))
            if p // window != q // window or (i[a] < shift[a]) != (j[a] < shift[a]):
                return False
        return True

    def bias(i, j):
        rows, columns = (
            (i[a] - shift[a]) % length[a] - (j[a] - shift[a]) % length[a] + window - 1
            for a in range(2)
        )
        return table[rows * (2 * window - 1) + columns]

    y = np.zeros((n, *size, channels))
    for i in np.ndindex(*size):
        keys = [j for j in places if seen(i, j)]
        rows, columns = np.array(keys).T
        query, key, value = (
            qkv[:, i[0], i[1], 0],
            *(qkv[:, rows, columns, part] for part in (1, 2)),
        )
        logits = np.einsum("nhd,nkhd->nkh", query, key) / np.sqrt(channels // heads)
        logits += np.array([bias(i, j) for j in keys])
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        y[:, *i] = np.einsum("nkh,nkhd->nhd", weights, value).reshape(n, channels)
    return y @ host(layer.proj.kernel) + host(layer.proj.bias)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", SIZES)
def test_windows_are_what_they_are_by_definition(size, shift):
    layer, x = attention(size, shift), tokens(size)
    expected = plain_attention(layer, x)
    assert relative_error(run(layer, x), expected) <= TOLERANCE
    assert relative_error(run(layer.merged(), x), expected) <= TOLERANCE


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("known", [(None, None), (10, None), (None, 17)])
def test_unknown_sizes_equal_known_ones(known, merged):
    layer = attention(known, 3)
    inputs = keras.Input((*known, 8))
    # Inside a graph, where sizes are tensors.
    unknown = keras.Model(inputs, (layer.merged() if merged else layer)(inputs))
    for size in SIZES:
        if all(k in (None, s) for k, s in zip(known, size)):
            twin, x = attention(size, 3), tokens(size)
            twin.set_weights(layer.get_weights())
            found = unknown.predict(x, verbose=0)
            assert relative_error(found, run(twin, x)) <= TOLERANCE, size


def live(network):
    """A PyTorch network with random norms, and its state for us."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        scale = 0.5 if value.ndim == 1 or "table" in name else 1
        if value.is_floating_point() and scale < 1 and "mask" not in name:
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
    return {k: v.numpy() for k, v in network.state_dict().items()}


def outputs_of(network, x):
    with torch.no_grad():
        nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        return network.double().eval()(nchw.double()).numpy()


CONFIG = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}
OURS = {"width": 8, "depths": (2, 2, 2), "heads": (1, 2, 4)}


@pytest.mark.parametrize("size", [(113, 70), (56, 112), (20, 20), (3, 2)])
def test_networks_equal_pytorchs_at_any_size(size):
    network = pytorch.build("swin", **CONFIG, img_size=size, num_classes=7)
    state = live(network)
    model = kmlp.load_published(kmlp.SwinTransformer(7, (*size, 3), **OURS), state)
    x = images(model)
    expected = outputs_of(network, x)
    assert relative_error(run(model, x), expected) <= TOLERANCE
    assert relative_error(run(kmlp.merge(model), x), expected) <= TOLERANCE
    anysize = kmlp.resize(model, (None, None, 3))
    assert relative_error(anysize.predict(x, verbose=0), expected) <= TOLERANCE
    merged = kmlp.merge(anysize)
    assert relative_error(merged.predict(x, verbose=0), expected) <= TOLERANCE


def test_pytorchs_masks_and_indices_are_the_published_ones():
    state = kmlp.weights.read_state(REFERENCE / "swin_small.npz")
    arguments = {"embed_dim": 16, "depths": (2, 2, 2), "num_heads": (2, 4, 8)}
    network = pytorch.build("swin", **arguments, img_size=112, num_classes=10)
    buffers = {name: buffer.numpy() for name, buffer in network.named_buffers()}
    assert buffers.keys() == {name for name in state if derived(name)}
    for name, buffer in buffers.items():
        assert (buffer == state[name]).all(), name


def with_whole_tables(state, network):
    """timm's tables of windows smaller than 7, which are smaller, amid larger ones."""
    for name, module in network.named_modules():
        if hasattr(module, "relative_position_bias_table"):
            key = f"{name}.relative_position_bias_table"
            sides = [2 * size - 1 for size in module.window_size]
            edges = [((13 - side) // 2,) * 2 for side in sides]
            table = np.pad(state[key].reshape(*sides, -1), [*edges, (0, 0)])
            state[key] = table.reshape(169, -1)
    return state


# Windows tile the maps, or cover them along one axis or both.
@pytest.mark.parametrize("size", [(224, 224), (112, 56), (16, 16)])
def test_networks_and_names_equal_timms(size):
    try:
        timm = timm_module("timm.models.swin_transformer")
    except ImportError as error:
        pytest.skip(str(error))
    network = timm.SwinTransformer(img_size=size, num_classes=7, **CONFIG)
    state = with_whole_tables(live(network), network)
    assert kmlp.weights.recognise(state).scheme == "timm"
    model = kmlp.SwinTransformer(7, (*size, 3), **OURS)
    kmlp.load_published(model, state)
    x = images(model)
    assert relative_error(run(model, x), outputs_of(network, x)) <= TOLERANCE


def test_the_published_state_tells_its_network():
    state = kmlp.weights.read_state(REFERENCE / "swin_small.npz")
    seems = kmlp.weights.recognise(state)
    assert (seems.family, seems.scheme) == (kmlp.SwinTransformer, "published")
    assert seems.structure == {
        **{"patch_size": 4, "width": 16, "depths": (2, 2, 2), "heads": (2, 4, 8)},
        **{"window_size": 7, "mlp_ratio": 4, "num_classes": 10},
    }


def test_the_softmax_is_in_float32():
    """Where half precision would round biases to neighbours that are far apart."""
    layer, x = attention((6, 9), 3), tokens((6, 9))
    table = layer.relative_position_bias_table
    table.assign(host(table) + 3000)
    for policy in ("mixed_float16", "mixed_bfloat16"):
        twin = WindowAttention(2, 7, shift=3, dtype=policy)
        twin.build((None, 6, 9, 8))
        twin.set_weights(layer.get_weights())
        outputs = run(twin, x.astype(twin.compute_dtype)).astype("float32")
        assert relative_error(outputs, run(layer, x)) <= 0.05, policy


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"heads": (5, 6, 12, 24)}, ["`heads`", "96 channels", "Received: heads=5"]),
        ({"window_size": 0}, ["`window_size`", "positive", "window_size=0"]),
        ({"window_size": 3.5}, ["positive integer", "window_size=3.5"]),
        ({"heads": (3, 6, 12, 0)}, ["`heads`", "Received: heads=0"]),
        ({"depths": (2, 2, 6)}, ["equally long", "depths=(2, 2, 6)"]),
        ({"drop_path_rate": 1.0}, ["[0, 1)"]),
    ],
)
def test_bad_arguments_get_one_clear_line(arguments, words):
    with pytest.raises(ValueError, match="Received") as error:
        kmlp.SwinTransformer(5, (32, 32, 3), **arguments)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_shifts_lie_within_a_window():
    with pytest.raises(ValueError, match="Received: shift=7, window_size=7"):
        WindowAttention(1, 7, shift=7)


def test_multiply_adds_are_those_of_all_products():
    layer = attention((10, 17), 3)
    linear = (14 * 21 * 3 + 10 * 17) * 8**2
    assert layer.multiply_adds((None, 10, 17, 8)) == linear + 2 * 14 * 21 * 49 * 8
    less = 3 * (14 * 21 - 10 * 17) * 8**2
    merged = layer.merged().multiply_adds((None, 10, 17, 8))
    assert merged == layer.multiply_adds((None, 10, 17, 8)) - less
    # The window is the map.
    assert layer.multiply_adds((None, 5, 4, 8)) == 20 * 4 * 64 + 2 * 20 * 20 * 8
