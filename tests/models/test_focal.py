"""Focal Transformer at other sizes than the reference file's, and what does not fit."""

import importlib

import keras
import numpy as np
import pytest
from cases import build, relative_error, run
from published_states import state_of

import kmlp
from kmlp import pytorch
from kmlp.analysis.complexity import shapes_only
from kmlp.artifacts.source_network import compare
from kmlp.layers import FocalAttention
from kmlp.layers.focal_windows import FocalWindows
from kmlp.pytorch.counterparts import counterpart
from kmlp.weights import recognise
from kmlp.weights.renamings import SCHEMES

torch = pytest.importorskip("torch")
flop_counter = importlib.import_module("torch.utils.flop_counter")
TOLERANCE = 1e-5

# Maps and windows, by what is particular about them.
NETWORKS = {
    "maps of 14x21": {
        "input_shape": (56, 84, 3),
        "depths": (1,),
        "heads": (2,),
        "focal_windows": (5,),
        "focal_levels": (2,),
    },
    "many windows, then two, then one": {
        "input_shape": (24, 24, 3),
        "patch_size": 2,
        "depths": (1, 1, 1),
        "heads": (2, 2, 4),
        "window_size": 3,
        "focal_windows": (7, 3, 3),
        "focal_levels": (2, 2, 2),
        "expansion": 2,
    },
    "a map shorter than the window, twice as wide as high": {
        "input_shape": (16, 32, 3),
        "depths": (1,),
        "heads": (2,),
        "focal_windows": (3,),
        "focal_levels": (2,),
    },
    "neighbours as far as a window": {
        "input_shape": (36, 24, 3),
        "depths": (1,),
        "heads": (4,),
        "window_size": 3,
        "focal_windows": (1,),
        "focal_levels": (2,),
        "expansion": 3,
    },
    "neighbours and no pooled windows, then windows alone": {
        "input_shape": (24, 48, 3),
        "depths": (1, 1),
        "heads": (1, 2),
        "window_size": 3,
        "focal_windows": (3, 3),
        "focal_levels": (1, 1),
        "expansion": 1,
    },
    "pooled windows and no neighbours": {
        "input_shape": (24, 36, 3),
        "depths": (1,),
        "heads": (2,),
        "window_size": 3,
        "focal_windows": (3,),
        "focal_levels": (2,),
        "expansion": 0,
    },
}


def network(name, **changes):
    return kmlp.FocalTransformer(
        5, drop_path_rate=0.0, width=8, **{**NETWORKS[name], **changes}
    )


def randomized(published, seed=0):
    """The network with every parameter random, and its state."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    state = {k: v.numpy() for k, v in published.state_dict().items()}
    return published.double().eval(), state


def logits(published, x):
    with torch.no_grad():
        return published(torch.from_numpy(x).permute(0, 3, 1, 2).double()).numpy()


def images(model, batch=2):
    shape = (batch, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_equal_a_live_network(name):
    model = network(name)
    published, state = randomized(counterpart(model))
    kmlp.load_published(model, state)
    x = images(model)
    expected = logits(published, x)
    assert np.ptp(expected, axis=0).max() > 1e-3
    assert relative_error(run(model, x), expected) <= TOLERANCE
    merged = kmlp.merge(model)
    assert relative_error(run(merged, x), expected) <= TOLERANCE
    assert kmlp.profile(merged).macs == kmlp.profile(model).macs


@pytest.mark.parametrize("name", NETWORKS)
def test_multiply_adds_are_those_of_a_live_network(name):
    """But for pooled windows that no window has, as the map is too small."""
    model = network(name)
    unseen = 0
    for layer in (la for la in model.layers if isinstance(la, FocalAttention)):
        _, height, width, channels = layer.input.shape
        side = min(layer.window_size, height, width)
        seen = [min(layer.focal_window, 2 * s // side - 1) for s in (height, width)]
        keys = layer.focal_window**2 - seen[0] * seen[1]
        if layer.focal_level > 1:
            unseen += 2 * height * width * keys * channels
    published = counterpart(model).eval()
    with flop_counter.FlopCounterMode(display=False) as counter:
        published(torch.from_numpy(images(model, 1)).permute(0, 3, 1, 2))
    assert 2 * (kmlp.profile(model).macs + unseen) == counter.get_total_flops()


def test_a_file_tells_its_network_and_is_checked():
    state = state_of("focal_small")
    model = kmlp.load_published(recognise(state).build(), state)
    scheme = SCHEMES[kmlp.FocalTransformer][0]
    assert compare(model, state, scheme).difference <= TOLERANCE


def test_states_without_pooled_windows_are_recognised():
    model = network("neighbours and no pooled windows, then windows alone")
    seems = recognise(randomized(counterpart(model))[1]).structure
    assert seems["focal_levels"] == (1, 1)
    assert seems["expansion"] == 1
    assert seems["window_size"] == 3


def test_parameters_at_another_size():
    """The last stage's maps exceed the window at 448 and have neighbours."""
    with shapes_only():
        model = kmlp.create_model("focal_t", input_shape=(448, 448, 3))
    assert kmlp.profile(model).trainable == 29_190_844
    with torch.device("meta"):
        published = pytorch.build("focal_t", img_size=448)
    assert sum(p.numel() for p in published.parameters()) == 29_190_844


def test_neighbours_worked_by_hand():
    """Of the first of four 2x2 windows: towards each corner, around the map."""
    windows = FocalWindows.of((4, 4), 2, expansion=1, focal_window=3)
    # Positions are numbered window by window.
    number = {
        (r, c): 4 * (2 * (r // 2) + c // 2) + 2 * (r % 2) + c % 2
        for r in range(4)
        for c in range(4)
    }
    corners = [(1, 2), (2, 1), (2, 2), (1, 3), (2, 3), (2, 0)]
    corners += [(3, 1), (3, 2), (0, 2), (3, 3), (3, 0), (0, 3)]
    first = windows.key_index()[0]
    assert first[:4].tolist() == [0, 1, 2, 3]
    assert first[4:16].tolist() == [number[place] for place in corners]
    # Of the pooled windows around it, those beyond the map are not seen.
    seen = [False, False, False, False, True, True, False, True, True]
    assert (~windows.outside()[0]).tolist() == seen
    assert first[16:][seen].tolist() == [16, 17, 18, 19]


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ((224, 224), None),
        ((224, 448), None),
        ((256, 256), ["224x224, 224x448, 448x224, 448x448"]),
        ((448, 500), ["448x448, 448x672."]),
        ((225, 224), ["224x224, 448x224."]),
        ((112, 112), ["height x width: 224x224."]),
        ((None, None), ["known height and width"]),
        ((None, 224), ["known height and width"]),
    ],
)
def test_sizes_fit_or_the_nearest_are_named(size, nearest):
    def make():
        with shapes_only():
            return kmlp.FocalTransformer(
                5, (*size, 3), width=4, depths=(1,) * 4, heads=(1,) * 4
            )

    if nearest is None:
        assert make().pyramid_outputs["P5"].shape[1:3] == (size[0] // 32, size[1] // 32)
        return
    with pytest.raises(ValueError, match=r"Received: input_shape=\(") as error:
        make()
    message = str(error.value)
    assert "\n" not in message
    assert all(words in message for words in nearest)


def test_the_nearest_of_maps_shorter_than_the_window():
    """At stride 8 and 16; 3x4 and 6x8 positions do not part into squares of 3 or 4."""
    arguments = {"patch_size": 8, "depths": (1, 1), "heads": (1, 1), "width": 4}
    arguments |= {"focal_windows": (1, 1), "focal_levels": (2, 2)}
    with pytest.raises(ValueError, match="32x64, 48x48, 48x96") as error:
        kmlp.FocalTransformer(5, (48, 64, 3), **arguments)
    for size in ((48, 48, 3), (32, 64, 3)):
        assert kmlp.FocalTransformer(5, size, **arguments)
    assert "Received: input_shape=(48, 64, 3)" in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"heads": (3,)}, ["must divide the 8 channels", "heads=3"]),
        ({"heads": (0,)}, ["positive integer", "heads=0"]),
        ({"heads": (2, 4)}, ["one value per stage", "heads=(2, 4)"]),
        ({"focal_windows": (4,)}, ["odd", "focal_window=4"]),
        ({"focal_levels": (3,)}, ["one of 1, 2.", "focal_level=3"]),
        ({"expansion": 8}, ["0 to `window_size`", "expansion=8"]),
        ({"expansion": -1}, ["expansion=-1"]),
        ({"window_size": 0}, ["positive integer", "window_size=0"]),
    ],
)
def test_bad_arguments(change, words):
    with pytest.raises(ValueError, match="Received: ") as error:
        network("maps of 14x21", **change)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_layer_needs_a_size_that_fits():
    for size, words in (((None, 6), "known height"), ((6, 7), "a map of 6x7")):
        with pytest.raises(ValueError, match=words):
            FocalAttention(2, 3).build((None, *size, 8))


def test_resized_networks_are_those_of_the_size():
    model = build("focal")
    twin = kmlp.resize(model, (24, 96, 3))
    weights = {w.path: keras.ops.convert_to_numpy(w) for w in model.weights}
    for weight in twin.weights:
        value = keras.ops.convert_to_numpy(weight)
        assert (value == weights.pop(weight.path)).all(), weight.path
    assert not weights
    table = SCHEMES[kmlp.FocalTransformer][0].theirs(w.path for w in twin.weights)
    published, state = randomized(counterpart(twin))
    assert {name for name, _ in table.values()} == set(state)
    kmlp.load_published(model, state)
    wide = kmlp.resize(model, (24, 96, 3))
    x = images(wide)
    assert relative_error(run(wide, x), logits(published, x)) <= TOLERANCE


@pytest.mark.parametrize("size", [(48, 48, 3), (8, 32, 3)])
def test_resizing_says_what_differs(size):
    """Neighbours appear where maps come to exceed the window, and windows shrink."""
    model = build("focal")
    with pytest.raises(ValueError, match="Received: a map of") as error:
        kmlp.resize(model, size)
    message = str(error.value)
    assert "neighbours on a map of" in message
    assert "stage" in message
    assert "\n" not in message


def test_attention_is_finite_in_half_precision():
    """Logits of some thousands, more than float16's exponentials bear."""
    layer = FocalAttention(1, 3, focal_window=3, expansion=1, dtype="mixed_float16")
    layer.build((None, 6, 6, 8))
    kernel = np.random.default_rng(0).normal(size=(8, 24))
    kernel[:, :16] *= 15
    layer.qkv.kernel.assign(kernel)
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 8)).astype("float32")
    half = run(layer, x).astype("float32")
    assert np.isfinite(half).all()
    exact = FocalAttention.from_config({**layer.get_config(), "dtype": "float32"})
    exact.build((None, 6, 6, 8))
    exact.set_weights(layer.get_weights())
    assert np.median(np.abs(half - run(exact, x))) <= 0.02 * np.abs(half).max()
