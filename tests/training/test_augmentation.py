"""Policies, erasing and mixing against Pillow, timm and hand calculation."""

import functools
import importlib.util
import random
import types
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from kmlp.errors import KmlpError
from kmlp.pytorch.timm_resmlp import timm_module
from kmlp.training.input import mixing, policies
from kmlp.training.input.mixing import compiled

torch = pytest.importorskip("torch")
if importlib.util.find_spec("timm") is None:
    pytest.skip("needs timm", allow_module_level=True)

auto_augment = timm_module("timm.data.auto_augment")
random_erasing = timm_module("timm.data.random_erasing")
timm_mixup = timm_module("timm.data.mixup")

MEAN = (0.485, 0.456, 0.406)
SIZE = (80, 96)  # width and height
RAND, INCREASING = "rand-m9-mstd0.5", "rand-m9-mstd0.5-inc1"
RESAMPLING = {False: Image.Resampling.BILINEAR, True: Image.Resampling.BICUBIC}


@functools.cache
def images():
    """Two photographs; one colour; few levels, none of them black or white."""
    photographs = [
        Image.fromarray(load_sample_image(name)).resize(SIZE)
        for name in ("china.jpg", "flower.jpg")
    ]
    flat = np.full((*SIZE[::-1], 3), (0, 77, 255), np.uint8)
    few = np.random.default_rng(0).integers(20, 60, (*SIZE[::-1], 3), np.uint8)
    return *photographs, Image.fromarray(flat), Image.fromarray(few)


@functools.cache
def applier(name):
    """A policy and its application: compiled, or op by op for the plain "rand"."""
    policy = policies.parse(name, mean=MEAN)
    return policy, (tf.function if name == RAND else compiled)(policy.apply)


def ours(name, operation, image, *, level, negative=False, cubic=False, centre=(0, 0)):
    """One operation of a policy; its second layer does nothing."""
    policy, apply = applier(name)
    index = policy.operations.index(operation)
    layers = policies.Layer(
        operation=tf.constant([index, -1]),
        strength=tf.constant([level / 10, 0], tf.float64),
        negative=tf.constant([negative, False]),
        cubic=tf.constant([cubic, False]),
        row=tf.constant([centre[0], 0], tf.float64),
        column=tf.constant([centre[1], 0], tf.float64),
    )
    return apply(np.asarray(image), layers).numpy().astype(int)


def pillows(name, operation, image, *, level, negative=False, cubic=False):
    """The same by timm on Pillow."""
    mean = (128,) * 3 if name == policies.REPMLPNET else (124, 116, 104)
    parameters = {"img_mean": mean, "interpolation": RESAMPLING[cubic]}
    if level > 10:
        parameters["magnitude_max"] = 14
    timms = auto_augment.AugmentOp(operation, 1.0, level, parameters)
    draw = 0.9 if negative else 0.1
    with mock.patch.object(random, "random", return_value=draw):
        return np.asarray(timms(image)).astype(int)


# By policy, up to the ends of their ranges.
LEVELS = {
    RAND: (0, 2.5, 5, 9.3, 10),
    INCREASING: (0, 2.5, 5, 8.2, 9.3, 9.99),
    policies.REPMLPNET: (0, 1, 3, 5, 8, 11, 14),
}
VALUED = [
    (name, operation, level)
    for name, levels in LEVELS.items()
    for operation in policies.parse(name).values
    for level in levels
]
GEOMETRIC = [
    (operation, level, negative, cubic)
    for operation in policies.parse(RAND).geometric
    for level in (0, 3.3, 9.3)
    for negative in (False, True)
    for cubic in (False, True)
]
# Pillow refuses to keep no bit, older versions gave black.
BLACK = {(RAND, "Posterize"): 2.5, (policies.REPMLPNET, "Posterize"): 2.5}


@pytest.mark.parametrize(("name", "operation", "level"), VALUED)
def test_operations_on_values_are_pillows(name, operation, level):
    for image, negative in zip(images(), (False, True, False, True)):
        got = ours(
            name, operation, image, level=level, negative=negative, centre=(0.4, 0.99)
        )
        if operation == "Cutout":
            half = max(2, int(4 * level)) // 2
            want = np.array(image, int)
            rows, columns = slice(38 - half, 38 + half), slice(79 - half, 79 + half)
            want[rows, columns] = (125, 122, 113)
        elif level < BLACK.get((name, operation), 0):
            want = np.zeros_like(got)
        elif name == policies.REPMLPNET and operation == "SolarizeAdd":
            want = np.asarray(auto_augment.solarize_add(image, int(11 * level)))
        else:
            want = pillows(name, operation, image, level=level, negative=negative)
        np.testing.assert_array_equal(got, want)


def test_full_level_of_increasing_posterize_is_black():
    assert not ours(INCREASING, "PosterizeIncreasing", images()[0], level=10).any()


@pytest.mark.parametrize("name", [RAND, INCREASING, policies.REPMLPNET])
@pytest.mark.parametrize(("operation", "level", "negative", "cubic"), GEOMETRIC)
def test_geometric_operations_are_pillows(name, operation, level, negative, cubic):
    for image in images():
        case = {"level": level, "negative": negative, "cubic": cubic}
        difference = np.abs(
            ours(name, operation, image, **case)
            - pillows(name, operation, image, **case)
        )
        assert difference.max() <= 1
        # Where a value is whole, single and double precision may truncate apart.
        assert difference.mean() < 0.02


# timm's own reading of the names.
NAMES = [
    "rand",
    "rand-m9-mstd0.5-inc1",
    "rand-n3-m7-p0.3",
    "rand-mstd101-mmax12-m12-inc0",
    "rand-inc1-m0",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_mean_what_they_mean_to_timm(name):
    policy, timms = policies.parse(name), auto_augment.rand_augment_transform(name)
    assert policy.layers == timms.num_layers
    assert policy.probability == timms.ops[0].prob
    assert set(policy.operations) == {op.name for op in timms.ops}
    assert len(policy.operations) == len(timms.ops)
    probabilities = [0.001, 0.1, 0.5, 0.9, 0.999]
    got = policy.level(tf.constant(probabilities, tf.float64)).numpy()
    op = timms.ops[0]
    if op.magnitude_std == float("inf"):
        want = np.array(probabilities) * op.magnitude
    else:
        deviates = np.array([-3.090232306, -1.281551566, 0, 1.281551566, 3.090232306])
        want = op.magnitude + op.magnitude_std * deviates
    np.testing.assert_allclose(got, want.clip(0, op.magnitude_max or 10), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "rand-",
        "augmix-m5",
        "rand-m9-x3",
        "rand-m",
        "rand-m9-m8",
        "rand-n0",
        "rand-p2",
        "rand-n1.5",
        "rand-inc2",
        "repmlpnet",
        "rand-m9-tweights",
        None,
    ],
)
def test_unknown_names_stop(name):
    with pytest.raises(KmlpError, match=r'such as "rand-m9-mstd0.5-inc1". Received: '):
        policies.policy(name)


def test_unknown_interpolation():
    with pytest.raises(ValueError, match="'bilinear', 'bicubic', 'random'"):
        policies.policy("rand", interpolation="nearest")


def collected(function, count, threads=2):
    """What a function gives for the seeds (0, 7), (1, 7), …, in one array each."""
    seeds = tf.data.Dataset.range(count).map(lambda i: tf.stack([i, 7]))
    dataset = seeds.map(function, num_parallel_calls=threads).batch(count)
    return tf.nest.map_structure(
        lambda values: values.numpy(), dataset.get_single_element()
    )


def assert_share(flags, expected):
    """Within four standard deviations."""
    deviation = np.sqrt(expected * (1 - expected) / np.size(flags))
    assert abs(np.mean(flags) - expected) <= 4 * deviation


@pytest.mark.parametrize(
    ("name", "applied", "count"), [(INCREASING, 0.5, 15), (policies.REPMLPNET, 1, 16)]
)
def test_draws(name, applied, count):
    drawn = collected(policies.parse(name).draw, 8000)
    assert_share(drawn.operation >= 0, applied)
    operations = drawn.operation[drawn.operation >= 0]
    assert sorted(set(operations)) == list(range(count))
    for operation in range(count):
        assert_share(operations == operation, 1 / count)
    assert_share(drawn.negative, 0.5)
    assert_share(drawn.cubic, 0.5)
    level = 10 * drawn.strength
    if name == policies.REPMLPNET:
        for whole in range(15):
            assert_share(np.isclose(level, whole), 1 / 15)
    else:
        assert level.max() == 10
        assert_share(level < 9, 0.5)
        assert_share(level < 8.5, 0.158655)
        assert_share(level == 10, 0.022750)
    # Nothing tells the sign of the other layer's, of the level or of the operation.
    assert_share(drawn.negative[:, 0] == drawn.negative[:, 1], 0.5)
    assert_share(drawn.negative == (level < np.median(level)), 0.5)
    assert_share(drawn.negative[drawn.operation >= count // 2], 0.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_fixed_interpolation(interpolation):
    drawn = collected(policies.parse(RAND, interpolation=interpolation).draw, 50)
    assert (drawn.cubic == (interpolation == "bicubic")).all()


def test_policy_is_a_function_of_the_seed():
    augment = policies.policy(INCREASING, mean=MEAN)
    image = tf.constant(np.asarray(images()[0]))
    first = collected(lambda seed: augment(image, seed), 60, threads=1)
    again = collected(lambda seed: augment(image, seed), 60, threads=4)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(first.reshape(60, -1), axis=0)) > 30
    # By hand: what was drawn, applied one after the other.
    policy, _ = applier(INCREASING)
    for seed in range(6):
        layers = policy.draw(tf.constant([seed, 7], tf.int64))
        want = images()[0]
        for layer in zip(*(values.numpy() for values in layers)):
            layer = policies.Layer(*layer)
            if layer.operation >= 0:
                want = pillows(
                    INCREASING,
                    policy.operations[layer.operation],
                    want,
                    level=10 * layer.strength,
                    negative=layer.negative,
                    cubic=layer.cubic,
                )
                want = Image.fromarray(want.astype(np.uint8))
        difference = np.abs(first[seed].astype(int) - np.asarray(want))
        assert difference.mean() < 0.02


def test_policy_takes_images_of_unknown_size():
    augment = policies.policy(policies.REPMLPNET)
    dataset = tf.data.Dataset.from_tensors(10).map(
        lambda side: augment(tf.zeros((side, 9, 3), tf.uint8), tf.stack([side, side]))
    )
    assert dataset.element_spec.shape.as_list() == [None, 9, 3]
    assert dataset.get_single_element().shape == (10, 9, 3)


def test_erased_rectangles_are_timms():
    height, width = 48, 40
    draws = np.random.default_rng(0).random((300, 4)).astype("float32")
    fits, *boxes = mixing.rectangles(tf.constant(draws.T), height, width)
    assert 0.01 < 1 - np.mean(fits) < 0.2
    for draw, fit, top, left, rows, columns in zip(draws, fits, *boxes):
        values = iter(draw.astype(float))
        generator = mock.Mock(
            random=lambda: 0.0,
            uniform=lambda low, high, v=values: low + next(v) * (high - low),
            randint=lambda low, high, v=values: low + int(next(v) * (high - low + 1)),
        )
        want = torch.ones(3, height, width)
        eraser = random_erasing.RandomErasing(1, device="cpu")
        with mock.patch.object(random_erasing, "random", generator):
            if fit:
                eraser(want)
            else:
                # Its next attempt asks for draws that are not there.
                with pytest.raises(StopIteration):
                    eraser(want)
        got = np.ones((height, width))
        if fit:
            got[top : top + rows, left : left + columns] = 0
        np.testing.assert_array_equal(got, want[0].numpy())


def test_erasing():
    height, width = 24, 32
    image = tf.fill((height, width, 3), 100.0)
    erase = functools.partial(mixing.erase, image, probability=0.25)
    got = collected(erase, 4000)
    noise = got != 100
    assert_share(noise.any((1, 2, 3)), 0.25)
    np.testing.assert_array_equal(noise.any(-1), noise.all(-1))
    rows, columns = noise.any((2, 3)).sum(1), noise.any((1, 3)).sum(1)
    areas = noise.any(-1).sum((1, 2))
    np.testing.assert_array_equal(areas, rows * columns)
    areas = areas[areas > 0] / (height * width)
    # Sides are rounded to pixels; the largest and slimmest ones do not fit.
    assert areas.min() > 0.01
    assert areas.max() < 0.37
    assert areas.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    values = got[noise]
    assert values.mean() == pytest.approx(0, abs=4 / np.sqrt(values.size))
    assert values.std() == pytest.approx(1, abs=4 / np.sqrt(2 * values.size))
    # All that is drawn is different from pixel to pixel and from image to image.
    assert len(np.unique(values)) > 0.98 * values.size
    np.testing.assert_array_equal(got[:300], collected(erase, 300, threads=4))
    assert mixing.erase(image, (0, 0), 0.0) is image


def timms_mix(images, labels, classes, smoothing, draws, *, share, cutting):
    """timm's mixture of NHWC images where all that it draws is given."""
    mixup = timm_mixup.Mixup(label_smoothing=smoothing, num_classes=classes)
    values = iter(draws)
    with (
        mock.patch.object(mixup, "_params_per_batch", return_value=(share, cutting)),
        mock.patch.object(
            timm_mixup.np.random,
            "randint",
            lambda low, high, size=None: low + int(next(values) * (high - low)),
        ),
    ):
        images = torch.tensor(images.transpose(0, 3, 1, 2))
        images, targets = mixup(images, torch.tensor(labels))
    return images.numpy().transpose(0, 2, 3, 1), targets.numpy()


@pytest.mark.parametrize("cutting", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixtures_are_timms(cutting, smoothing):
    generator = np.random.default_rng(1)
    images = generator.normal(size=(4, 13, 10, 3)).astype("float32")
    labels, classes = np.array([3, 0, 0, 6]), 7
    for share in (0.0, 0.01, 0.3, 0.5, 0.77, 1.0, *generator.random(20)):
        row, column = draws = generator.random(2)
        if cutting:
            kept = mixing.outside(tf.constant(share), row, column, 13, 10)
        else:
            kept = tf.fill((13, 10), np.float32(share))
        targets = mixing.smoothed(labels, classes, smoothing)
        got = mixing.mixed(images, targets, kept)
        want = timms_mix(
            images, labels, classes, smoothing, draws, share=share, cutting=cutting
        )
        np.testing.assert_allclose(got[0], want[0], atol=1e-6)
        np.testing.assert_allclose(got[1], want[1], atol=1e-6)


# Mixup's alpha, CutMix's alpha, their probability, that of CutMix where both are on.
MIXES = [(0.8, 1.0, 1.0, 0.5), (0.8, 0.0, 0.3, 0.5), (0.0, 1.0, 0.6, 0.2)]


def mixture(smoothing, mixup=0.0, cutmix=0.0, probability=1.0, switch=0.5):
    """The fields of a recipe that count for mixing."""
    return types.SimpleNamespace(
        label_smoothing=smoothing,
        mixup=mixup,
        cutmix=cutmix,
        mix_probability=probability,
        switch_probability=switch,
    )


@pytest.mark.parametrize(("mixup", "cutmix", "probability", "switch"), MIXES)
def test_draws_of_mixing(mixup, cutmix, probability, switch):
    """A white and a black image show the share and whether it was cut."""
    batch = tf.stack([tf.ones((16, 16, 3)), tf.zeros((16, 16, 3))])
    images, targets = collected(
        lambda seed: mixing.mix(
            batch, [0, 1], 2, seed, mixture(0.0, mixup, cutmix, probability, switch)
        ),
        6000,
    )
    shares = targets[:, 0, 0]
    np.testing.assert_allclose(images[:, 0].mean((1, 2, 3)), shares, atol=1e-6)
    np.testing.assert_allclose(targets.sum(2), 1, atol=1e-6)
    np.testing.assert_allclose(images[:, 0] + images[:, 1], 1, atol=1e-6)
    cut = ((images == 0) | (images == 1)).all((1, 2, 3, 4))
    if mixup and cutmix:
        assert_share(cut, switch)
    # A tiny box leaves everything as it is: below a 256th of the area.
    whole = shares == 1
    if cutmix and not mixup:
        assert cut.all()
        assert_share(whole, 1 - probability + probability / 256)
    if mixup and not cutmix:
        assert_share(whole, 1 - probability)
        np.testing.assert_array_equal(whole, cut)
    mixed = shares[~cut] if mixup else shares[:0]
    if mixup:
        assert mixed.mean() == pytest.approx(0.5, abs=0.03)
        # Of Beta(a, a).
        assert mixed.var() == pytest.approx(1 / (8 * mixup + 4), rel=0.06)


def test_mixing_by_hand():
    """No mixing; an odd batch; a batch of one."""
    images = tf.random.stateless_normal((3, 4, 5, 3), (0, 0))
    got, targets = mixing.mix(images, [2, 0, 3], 4, (0, 0), mixture(0.2))
    assert got is images
    np.testing.assert_allclose(
        targets,
        [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]],
        atol=1e-7,
    )
    mixup = mixture(0.0, mixup=1.0)
    got, targets = mixing.mix(images, [2, 0, 3], 4, (0, 0), mixup)
    share = targets.numpy()[0, 2]
    assert 0 < share < 1
    want = [
        share * images[0] + (1 - share) * images[2],
        images[1],
        share * images[2] + (1 - share) * images[0],
    ]
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(targets[1], [1, 0, 0, 0], atol=1e-7)
    got, targets = mixing.mix(images[:1], [1], 4, (0, 0), mixup)
    np.testing.assert_allclose(got, images[:1], atol=1e-6)
    np.testing.assert_allclose(targets, [[0, 1, 0, 0]], atol=1e-7)


def test_shapes_are_static_in_a_pipeline():
    augment = policies.policy(RAND)

    def prepared(seed):
        image = augment(tf.zeros((8, 9, 3), tf.uint8), seed)
        return mixing.erase(tf.cast(image, tf.float32), seed, 0.5)

    seeds = tf.data.Dataset.from_tensors(tf.constant([1, 2]))
    dataset = seeds.map(prepared).batch(1, drop_remainder=True)
    chosen = mixture(0.1, mixup=0.8, cutmix=1.0)
    dataset = dataset.map(lambda batch: mixing.mix(batch, [1], 5, (0, 0), chosen))
    assert [spec.shape for spec in dataset.element_spec] == [(1, 8, 9, 3), (1, 5)]
