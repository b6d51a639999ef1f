"""Semantic FPN and UperNet over every hierarchical family."""

import keras
import numpy as np
import pytest
from cases import long
from dense_backbones import ANY_SIZE, BACKBONES, backbone, images, randomised, relative
from keras import ops

import kmlp
from kmlp.analysis.complexity import count_parameters
from kmlp.segmentation import SemanticFPN, UperNet

CLASSES = 5
HEADS = {
    "semantic_fpn": (SemanticFPN, {"fpn_filters": 16, "filters": 8}),
    "upernet": (UperNet, {"filters": 12, "auxiliary_filters": 6}),
}
CASES = [(family, head) for family in BACKBONES for head in HEADS]


def segmenter(family, head, **changes):
    cls, arguments = HEADS[head]
    return cls(backbone(family), CLASSES, **{**arguments, **changes})


def host(values):
    return ops.convert_to_numpy(values)


@pytest.mark.parametrize(
    ("family", "head"),
    [case if case[0] == "convmlp" else long(*case) for case in CASES],
)
def test_saved_configured_and_merged(family, head, tmp_path):
    model = randomised(segmenter(family, head))
    x = images()
    logits = host(model(x, training=False))
    assert logits.shape == (2, 64, 96, CLASSES)
    assert logits.dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert len(loaded.weights) == len(model.weights)
    assert np.array_equal(host(loaded(x, training=False)), logits)
    assert loaded.get_config() == model.get_config()
    merged = kmlp.merge(model)
    assert relative(host(merged(x)), logits) < 1e-5
    kinds = (keras.layers.BatchNormalization,)
    assert not [la for la in merged._flatten_layers() if isinstance(la, kinds)]


@pytest.mark.long
@pytest.mark.parametrize(("family", "head"), [("convmlp", "upernet")])
def test_the_auxiliary_head_is_counted_trained_and_not_merged(family, head):
    model = segmenter(family, head)
    x, labels = images(), np.random.default_rng(0).integers(0, CLASSES, (2, 64, 96))
    without = segmenter(family, head, auxiliary=False)
    c4, filters = 24, 6
    extra = count_parameters(model.trainable_weights)
    extra -= count_parameters(without.trainable_weights)
    assert extra == 9 * c4 * filters + 2 * filters + (filters + 1) * CLASSES
    before = host(model.auxiliary_conv.conv.kernel).copy()
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(x, labels, verbose=0)
    assert np.abs(host(model.auxiliary_conv.conv.kernel) - before).max() > 0
    names = {w.path.split("/")[0] for w in kmlp.merge(model).weights}
    assert not [name for name in names if "auxiliary" in name]


SHEET = [  # head, constants of the sheet's formula for K classes and c2 … c5 channels
    (SemanticFPN, {}, lambda c, k: 3_985_152 + 256 * sum(c) + 129 * k),
    (
        UperNet,
        {"auxiliary": False},
        lambda c, k: 25_964_544 + 512 * sum(c[:3]) + 6656 * c[3] + 513 * k,
    ),
    (
        UperNet,
        {},
        lambda c, k: (
            25_964_544
            + 512 * sum(c[:3])
            + 6656 * c[3]
            + 513 * k
            + (512 + 2304 * c[2] + 257 * k)
        ),
    ),
]


@pytest.mark.parametrize(("cls", "arguments", "formula"), SHEET)
@pytest.mark.parametrize(("family", "k"), [("convmlp", 150), ("msmlp", 19)])
def test_trainable_parameters_past_the_backbone(cls, arguments, formula, family, k):
    taps = backbone(family)
    channels = [tap.shape[-1] for tap in taps.pyramid_outputs.values()]
    model = cls(taps, k, **arguments)
    past = count_parameters(model.trainable_weights)
    past -= count_parameters(model.backbone.trainable_weights)
    norms = 2 * sum(channels) if family == "msmlp" else 0
    assert past == formula(channels, k) + norms


PAPERS = [  # architecture, head, backbone to the unit or None, total in millions
    ("convmlp_s", SemanticFPN, 8_508_896, 12.76),
    ("convmlp_m", SemanticFPN, 16_896_480, 21.15),
    ("convmlp_l", SemanticFPN, 41_957_904, 46.33),
    ("msmlp_t", UperNet, None, 60.31),
    long("msmlp_s", UperNet, None, 81.96),
    long("msmlp_b", UperNet, None, 122.21),
]


@pytest.mark.parametrize(("arch", "cls", "own", "total"), PAPERS)
def test_counts_of_the_papers(arch, cls, own, total):
    taps = kmlp.models.create_model(
        arch, input_shape=(None, None, 3), include_top=False
    )
    model = cls(taps, 150)
    if own is not None:
        assert count_parameters(model.backbone.trainable_weights) == own
    found = count_parameters(model.trainable_weights) / 1e6
    assert found == pytest.approx(total, abs=0.0051)


@pytest.mark.long
def test_multiply_adds_of_repmlpnet_on_cityscapes():
    counts = {}
    for downsample in ("conv3", "conv5"):
        taps = kmlp.models.create_model(
            "repmlpnet_d256",
            input_shape=(1024, 2048, 3),
            block_size=(64, 64),
            downsample=downsample,
            include_top=False,
        )
        model = UperNet(taps, 19, auxiliary=False)
        counts[downsample] = kmlp.profile(model).macs / 1e9
    assert counts["conv3"] == pytest.approx(1955.3, rel=0.0005)
    assert counts["conv3"] == pytest.approx(1960.0, rel=0.005)  # the paper
    assert counts["conv5"] - counts["conv3"] == pytest.approx(0.147, abs=0.0005)


@pytest.mark.parametrize("family", ANY_SIZE)
@pytest.mark.parametrize("head", HEADS)
def test_any_size(family, head):
    cls, arguments = HEADS[head]
    model = cls(backbone(family, (None, None, 3)), CLASSES, **arguments)
    fixed = cls(backbone(family, (50, 70, 3)), CLASSES, **arguments)
    fixed.set_weights(model.get_weights())
    x = images(size=(50, 70, 3))
    assert host(model(images(1))).shape == (1, 64, 96, CLASSES)
    assert relative(host(model(x)), host(fixed(x))) < 1e-6


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("head", HEADS)
def test_mixed_precision(policy, head):
    cls, arguments = HEADS[head]
    taps = backbone("convmlp", dtype=policy)
    model = cls(taps, CLASSES, dtype=policy, **arguments)
    full = cls(backbone("convmlp"), CLASSES, **arguments)
    full.set_weights(model.get_weights())
    logits = host(model(images()))
    assert logits.dtype == "float32"
    assert model.get_layer("classifier").compute_dtype == policy.removeprefix("mixed_")
    assert relative(logits, host(full(images()))) < 0.05


@pytest.mark.parametrize("head", HEADS)
def test_void_adds_nothing_and_is_never_nan(head):
    model = segmenter("convmlp", head, dropout=0.0)
    x = images()
    labels = np.random.default_rng(0).integers(0, CLASSES, (2, 64, 96))
    labels[0] = 255
    raw = model(x, training=True)
    for losses in map(host, model.losses_of(raw, labels).values()):
        assert losses[0] == 0
        assert np.isfinite(losses[1])
        assert losses[1] > 0
    # Half of an image void: the loss is that of the other half, over all pixels.
    half = labels.copy()
    half[1, :, :48] = 255
    other = labels.copy()
    other[1, :, 48:] = 255
    parts = [host(model.losses_of(raw, y)["class"])[1] for y in (half, other, labels)]
    assert parts[0] + parts[1] == pytest.approx(parts[2], rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("head", HEADS)
def test_fits_a_pattern(head):
    model = segmenter("convmlp", head, dropout=0.0)
    x = images(1)
    labels = (x[..., 0] > 0).astype("int32")
    labels[:, :8] = 255
    model.compile(keras.optimizers.Adam(1e-2))
    losses = model.fit(x, labels, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.35 * losses[0]
    # Moving statistics have not arrived after so few steps.
    logits = host(model(x, training=True)["logits"])
    known = labels[:, ::4, ::4] != 255
    right = logits.argmax(-1) == labels[:, ::4, ::4]
    assert right[known].mean() > 0.85


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SemanticFPN(kmlp.ResMLP(2, (64, 64, 3), depth=1, width=8), 3),
            "P2, P3, P5 are missing",
        ),
        (lambda: SemanticFPN(keras.layers.Dense(3), 3), "pyramid_outputs"),
        (
            lambda: SemanticFPN(backbone("convmlp"), 3, tap_norm="batch"),
            "tap_norm='batch'",
        ),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "Received: " in str(caught.value)
