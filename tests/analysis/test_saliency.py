"""Saliency against closed forms, PyTorch's own derivatives and the maps by hand."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import shipped
from cases import CASES, images, randomize, relative_error, run

import kmlp
from kmlp.analysis import saliency
from kmlp.analysis.maps import find_map, maps_of

SHAPE, CLASSES = (6, 5, 3), 4


def linear(activation=None):
    """Logits that are linear in the pixels, and their `(H, W, C, K)` weights."""
    inputs = keras.Input(SHAPE)
    x = keras.layers.Flatten()(inputs)
    dense = keras.layers.Dense(CLASSES, activation=activation)
    model = keras.Model(inputs, dense(x))
    weights = np.random.default_rng(0).normal(size=(90, CLASSES)).astype("float32")
    dense.set_weights([weights, np.arange(CLASSES, dtype="float32")])
    return model, weights.reshape(*SHAPE, CLASSES)


def small(name, classes=CLASSES, **arguments):
    keras.utils.set_random_seed(0)
    family, own = CASES[name]
    model = family(classes, **{**own, **arguments})
    randomize(model)
    if model.include_top:
        # Fresh networks hang on their pixels so little that errors would not show.
        kernel = model.get_layer("head").dense.kernel
        kernel.assign(1000 * kernel)
    return model


def test_a_linear_model_has_its_weights_for_a_gradient():
    model, weights = linear()
    x = images(model, 3)
    for found in (
        saliency.gradient(model, x, 2),
        saliency.smooth_grad(model, x, 2, samples=3, batch_size=2),
    ):
        expected = np.broadcast_to(weights[..., 2], (3, *SHAPE))
        np.testing.assert_allclose(found.values, expected, rtol=1e-6)
        np.testing.assert_allclose(found.maps, np.abs(expected).max(-1), rtol=1e-6)
        assert not found.signed
        np.testing.assert_array_equal(found.classes, [2, 2, 2])


@pytest.mark.parametrize("baseline", [0.0, (0.5, -1.0, 2.0), "images"])
def test_integrated_gradients_of_a_linear_model(baseline):
    model, weights = linear()
    x = images(model, 3)
    if isinstance(baseline, str):
        baseline = images(model, 3, seed=2)
    found = saliency.integrated_gradients(model, x, [0, 1, 3], baseline=baseline)
    own = np.moveaxis(weights, -1, 0)[[0, 1, 3]]
    expected = own * (x - np.asarray(baseline, "float32"))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.maps, expected.sum(-1), atol=1e-5)
    np.testing.assert_allclose(found.change, expected.sum((1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(found.gap, 0, atol=1e-4)
    assert found.signed
    assert (found.maps < 0).any()


def nested(activation):
    inner, weights = linear(activation)
    return keras.Sequential([keras.Input(SHAPE), inner]), weights


def layer_of_its_own(_):
    inner, weights = linear()
    return keras.Sequential([inner, keras.layers.Softmax()]), weights


@pytest.mark.parametrize("build", [linear, nested, layer_of_its_own])
def test_the_logit_is_differentiated_not_the_softmax(build):
    model, weights = build("softmax")
    x = images(model, 2)
    found = saliency.gradient(model, x)
    scores = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_array_equal(found.classes, scores.argmax(-1))
    expected = np.moveaxis(weights, -1, 0)[found.classes]
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)


def test_head_activation_is_left_out():
    model = small("resmlp")
    twin = small("resmlp", head_activation="softmax")
    twin.set_weights(model.get_weights())
    x = images(model, 2)
    for method in (saliency.gradient, saliency.class_activation_map):
        one, other = method(model, x), method(twin, x)
        assert relative_error(other.maps, one.maps) < 1e-5
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-4, atol=1e-6)


def test_a_function_is_taken_for_logits():
    _, weights = linear()

    def logits(x):
        flat = keras.ops.reshape(x, (-1, 90))
        return keras.ops.matmul(flat, weights.reshape(90, CLASSES))

    found = saliency.gradient(logits, np.ones((2, *SHAPE), "float32"), 1)
    np.testing.assert_allclose(found.values[0], weights[..., 1], rtol=1e-6)


def test_smooth_grad_without_noise_is_the_gradient():
    model = small("repmlpnet")
    x = images(model, 3)
    plain = saliency.gradient(model, x)
    smooth = saliency.smooth_grad(model, x, samples=2, noise=0.0, batch_size=2)
    assert relative_error(smooth.maps, plain.maps) < 1e-6


def test_smooth_grad_is_the_mean_over_noisy_copies():
    """x² has the gradient 2x, so the mean tells the noise's own mean and spread."""
    x = np.zeros((2, 30, 30, 1), "float32")
    x[:, 0, 0] = 4.0  # range 4

    def squares(batch):
        return keras.ops.sum(batch**2, axis=(1, 2))

    found = [
        saliency.smooth_grad(squares, x, 0, samples=16, noise=0.5, seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(found[0].values, found[1].values)
    assert np.abs(found[0].values - found[2].values).max() > 0.1
    assert np.abs(found[0].values[0] - found[0].values[1]).max() > 0.1
    # Twice the mean of 16 draws of deviation 0.5 · 4.
    assert found[0].values.std() == pytest.approx(2 * 2 / 4, rel=0.1)


@pytest.mark.parametrize("name", ["resmlp", "smlpnet"])
def test_integrated_gradients_are_complete(name):
    model = small(name)
    x = images(model, 3)
    found = saliency.integrated_gradients(model, x, steps=64, batch_size=64)
    assert np.abs(found.change).min() > 0.01
    assert np.abs(found.gap / found.change).max() < 1e-2
    sums = found.maps.sum((1, 2))
    np.testing.assert_allclose(sums - found.change, found.gap, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "factor"),
    [
        (saliency.gradient, 1.5),  # of one point, and so the noisiest
        (saliency.smooth_grad, 2),
        (saliency.integrated_gradients, 2),
        (saliency.class_activation_map, 2),
    ],
)
def test_what_is_salient_is_what_a_trained_network_needs(method, factor):
    """A tenth of the pixels, made grey: the most salient ones, or the least."""
    model, x = shipped.network(), shipped.photos()[0][::5]
    found = method(model, x)
    best = found.classes[:, None]
    if method is saliency.integrated_gradients:
        assert np.abs(found.gap / found.change).max() < 0.01
    shown = 32 // found.maps.shape[1]  # pixels along a position of the map
    maps = np.kron(found.maps, np.ones((1, shown, shown))).reshape(len(x), -1)
    lost = []
    for values in (maps, -maps):
        least = np.quantile(values, 0.9, axis=1, keepdims=True)
        kept = (values < least).reshape(*x.shape[:3], 1)
        after = run(model, (x * kept).astype("float32"))
        lost.append(np.take_along_axis(run(model, x) - after, best, 1).mean())
    assert lost[0] > max(factor * lost[1], 0.5)


def test_integrated_gradients_take_the_steps_that_they_need():
    """A kink's middles are counted: a pixel over the threshold has the gradient 1."""
    threshold = 0.5
    pixels = np.array([0.3, 0.53, 0.5401, 0.505, 0.56, 0.95], "float32")
    expected = []
    for count in (64, 192, 576):
        middles = (np.arange(count) + 0.5) / count
        over = (middles * pixels[:, None] > threshold).sum(1)
        expected.append(pixels * over / count)
    sums = np.stack(expected)
    change = np.maximum(pixels - threshold, 0)
    enough = np.abs(sums - change) <= 0.01 * change
    enough[-1] = True
    level = enough.argmax(0)
    assert set(level) == {0, 1, 2}
    assert (np.abs(sums - change)[-1] > 0.01 * change).any()

    def kinked(x):
        return keras.ops.relu(keras.ops.reshape(x, (-1, 1)) - threshold)

    found = saliency.integrated_gradients(kinked, pixels.reshape(-1, 1, 1, 1))
    np.testing.assert_array_equal(found.steps, np.array([64, 192, 576])[level])
    chosen = sums[level, np.arange(len(pixels))]
    np.testing.assert_allclose(found.maps.ravel(), chosen, atol=1e-6)
    np.testing.assert_allclose(found.gap, chosen - change, atol=1e-6)


@pytest.mark.long
def test_further_steps_are_those_of_one_sum():
    model = small("convmlp")
    x = images(model, 3)
    found = saliency.integrated_gradients(model, x, batch_size=64)
    most = found.steps.max()
    assert most > 64
    one = saliency.integrated_gradients(model, x, steps=int(most), batch_size=64)
    same = found.steps == most
    assert relative_error(found.values[same], one.values[same]) < 1e-5


@pytest.mark.parametrize("name", ["resmlp", "resmlp_batch_norm", "repmlpnet"])
def test_cam_of_norm_pool_dense_by_hand(name):
    """The Dense's weights on the map, with the norm's scale and without its shift."""
    model = small(name)
    x = images(model, 2)
    found = saliency.class_activation_map(model, x, 1)
    taps = keras.Model(model.inputs, list(model.pyramid_outputs.values())[-1])
    (values,) = (keras.ops.convert_to_numpy(taps(x, training=False)),)
    norm, dense = model.get_layer("head").normalize, model.get_layer("head").dense
    if isinstance(norm, keras.layers.BatchNormalization):
        scale = norm.gamma / keras.ops.sqrt(norm.moving_variance + norm.epsilon)
    else:
        scale = norm.alpha
    weights = keras.ops.convert_to_numpy(scale * dense.kernel[:, 1])
    positions = values.shape[1] * values.shape[2]
    assert relative_error(found.maps, values @ weights.ravel() / positions) < 1e-4
    assert found.maps.shape == values.shape[:3]
    assert found.layer == list(model.pyramid_outputs)[-1]


def test_grad_cam_at_another_layer_by_hand():
    """Two layers behind the map: the weights are means of a product of matrices."""
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(5, 1, name="first")(inputs)
    y = keras.layers.Conv2D(2, 3, padding="same", name="second")(x)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(y + x[..., :2]))
    inner = keras.Model(inputs, outputs, name="inner")
    model = keras.Sequential([keras.Input((4, 4, 3)), inner])
    data = images(model, 2)
    found = saliency.class_activation_map(model, data, 2, layer="inner/first")
    assert found.layer == "inner/first"
    first = keras.ops.convert_to_numpy(inner.get_layer("first")(data))

    # All that follows is linear: its derivative is its value at unit maps.
    def rest(maps):
        maps = keras.ops.convert_to_tensor(maps.astype("float32"))
        second = inner.get_layer("second")(maps) + maps[..., :2]
        flat = keras.ops.reshape(second, (maps.shape[0], -1))
        product = keras.ops.matmul(flat, inner.layers[-1].kernel)
        return keras.ops.convert_to_numpy(product)

    units = np.eye(80).reshape(80, 4, 4, 5)
    derivative = (rest(units) - rest(np.zeros((1, 4, 4, 5))))[:, 2]
    derivative = derivative.reshape(4, 4, 5)
    weights = derivative.mean((0, 1))
    np.testing.assert_allclose(found.maps, first @ weights, atol=1e-5)


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resmlp", {"input_shape": (32, 32, 3)}),
        ("convmlp", {}),
        ("repmlpnet", {"input_shape": (32, 32, 3)}),
    ],
)
def test_gradients_equal_pytorchs(name, arguments):
    """Of the published network with its own weights, by PyTorch's autograd."""
    import torch

    from kmlp.pytorch.counterparts import counterpart

    model = small(name, **arguments)
    torch.manual_seed(0)
    network = counterpart(model).eval()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                low = 0.5 if key.endswith("var") else -0.3
                value.uniform_(low, low + 0.6)
    state = {k: v.numpy() for k, v in network.state_dict().items()}
    kmlp.load_published(model, state)
    x = images(model, 2)
    there = torch.from_numpy(x).permute(0, 3, 1, 2).double().requires_grad_(True)
    logits = network.double()(there)
    classes = logits.argmax(-1)
    logits.gather(1, classes[:, None]).sum().backward()
    expected = there.grad.permute(0, 2, 3, 1).numpy()
    found = saliency.gradient(model, x)
    np.testing.assert_array_equal(found.classes, classes.numpy())
    unit = np.abs(expected).max()
    assert unit > 1e-7
    assert relative_error(found.values / unit, expected / unit) < 1e-4
    magnitudes = np.abs(expected).max(-1)
    assert relative_error(found.maps / unit, magnitudes / unit) < 1e-4


def test_merged_and_batched_alike():
    model = small("repmlpnet")
    x = images(model, 3)
    whole = saliency.gradient(model, x)
    for other in (
        saliency.gradient(kmlp.merge(model), x),
        saliency.gradient(model, x, batch_size=2),
        saliency.gradient(model, x, whole.classes),
    ):
        assert relative_error(other.maps, whole.maps) < 1e-4
    whole = saliency.class_activation_map(model, x)
    found = saliency.class_activation_map(kmlp.merge(model), x, batch_size=2)
    assert relative_error(found.maps, whole.maps) < 1e-4


def test_low_precision_gives_float32():
    found = saliency.gradient(
        small("resmlp", dtype="mixed_bfloat16"), np.ones((1, 32, 48, 3))
    )
    assert found.maps.dtype == np.float32
    assert np.isfinite(found.maps).all()


def test_maps_that_there_are():
    model = small("convmlp")
    names = [one.name for one in maps_of(model)]
    assert "head" not in names
    assert find_map(model).name == "P5"
    assert find_map(model, "P3").tensor is model.pyramid_outputs["P3"]
    # A block's sum is on the trunk, its branch is not.
    trunk = {one.name: one.trunk for one in maps_of(model)}
    assert trunk["stage2_block0_add2"]
    assert not trunk["stage2_block0_mlp2"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, x: saliency.class_activation_map(m, x, layer="stage1_blok0_add1"),
            "would do.*stage1_block0_add1.*Received: layer='stage1_blok0_add1'",
        ),
        (
            lambda m, x: saliency.class_activation_map(linear()[0], x[:, :6, :5]),
            "puts out a map.*integrated gradients need none",
        ),
        (lambda m, x: saliency.gradient(m, x[0]), r"images\[None\].*\(45, 64, 3\)"),
        (lambda m, x: saliency.gradient(m, x, 4), "classes 0 to 3.*classes=4"),
        (lambda m, x: saliency.gradient(m, x, -1), "classes 0 to 3.*classes=-1"),
        (lambda m, x: saliency.gradient(m, x, [1]), "one for each of the 2 images"),
        (lambda m, x: saliency.gradient(m, x, "cat"), "class's number"),
        (lambda m, x: saliency.smooth_grad(m, x, samples=0), "`samples` is at least"),
        (lambda m, x: saliency.smooth_grad(m, x, noise=-1), "`noise` is a share"),
        (lambda m, x: saliency.integrated_gradients(m, x, steps=0), "`steps` is at"),
        (
            lambda m, x: saliency.integrated_gradients(m, x, baseline=np.ones(5)),
            r"`baseline`.*Received: shape \(5,\)",
        ),
        (
            lambda m, x: saliency.gradient(small("convmlp", include_top=False), x),
            "Saliency is of a classifier",
        ),
    ],
)
def test_bad_input(call, message):
    model = small("convmlp")
    with pytest.raises(ValueError, match=message):
        call(model, images(model, 2))


SCRIPT = """
import sys
sys.path[:0] = ["tests"]
import cases, kmlp, numpy as np
from kmlp.analysis import saliency
from kmlp.analysis.features import stage_maps
family, own = cases.CASES["resmlp"]
model = family(4, **own)
random = np.random.default_rng(0)
model.set_weights([random.normal(0, 0.3, w.shape) for w in model.get_weights()])
x = cases.images(model, 2)
found = {
    "gradient": saliency.gradient(model, x).maps,
    "smooth": saliency.smooth_grad(model, x, samples=2).maps,
    "integrated": saliency.integrated_gradients(model, x, steps=4).maps,
    "cam": saliency.class_activation_map(model, x).maps,
    **stage_maps(model, x),
}
np.savez(sys.argv[1], **found)
"""


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="starts the other backends itself"
)
def test_three_backends_agree(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    running = {
        backend: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / f"{backend}.npz")],
            env={**os.environ, "KERAS_BACKEND": backend},
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in ("tensorflow", "jax", "torch")
        if importlib.util.find_spec(backend) is not None
    }
    found = {}
    for backend, process in running.items():
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
        found[backend] = dict(np.load(tmp_path / f"{backend}.npz"))
    first = found.pop("tensorflow")
    assert len(first) == 8
    for backend, maps in found.items():
        for name, expected in first.items():
            assert relative_error(maps[name], expected) < 1e-4, (backend, name)
