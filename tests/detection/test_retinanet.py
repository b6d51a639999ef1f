"""RetinaNet over every hierarchical family, its counts, detections and losses."""

import keras
import numpy as np
import pytest
from cases import few, long, run
from dense_backbones import ANY_SIZE, BACKBONES, backbone, images, randomised, relative
from keras import ops
from written_out import matched, overlap

import kmlp
from kmlp.analysis.complexity import count_parameters
from kmlp.detection import RetinaNet
from kmlp.detection.detections import DenseDetections

CLASSES = 5
# One image with two objects, one without any.
TARGETS = {
    "boxes": np.array(
        [[[8, 8, 40, 44], [50, 20, 90, 60], [0] * 4], [[0] * 4] * 3], "float32"
    ),
    "classes": np.array([[1, 4, -1], [-1, -1, -1]], "int32"),
}


def detector(family="convmlp", taps=None, **changes):
    arguments = {"fpn_filters": 16, "head_convs": 1, "score_threshold": 0.0}
    taps = backbone(family) if taps is None else taps
    return RetinaNet(taps, CLASSES, **{**arguments, **changes})


def spread(model):
    """The detector with random norms, and with scores that lie apart."""
    draws = np.random.default_rng(1)
    for head, scale in (("class_head", 0.3), ("box_head", 0.1)):
        kernel = model.get_layer(head).predict.kernel
        kernel.assign(draws.normal(0, scale, kernel.shape))
    return randomised(model)


def compiled(model, optimizer, eager=False):
    """Ready for `fit`, in the way that is ready soonest."""
    if keras.backend.backend() == "jax":
        model.compile(optimizer)
    else:
        model.compile(optimizer, jit_compile=False, run_eagerly=eager)
    return model


def host(values):
    return keras.tree.map_structure(ops.convert_to_numpy, values)


def raw(model, x):
    """The raw maps of inference, flat."""
    return keras.tree.flatten(run(model._raw, x, training=False))


def losses_of(model, x, targets=None):
    """The losses of images, with batch statistics where there are any."""

    def losses(x, training):
        return model.losses_of(
            model(x, training=training),
            tensors(TARGETS if targets is None else targets),
        )

    return run(losses, x, training=True)


def check_detections(found, count=2, limit=100):
    shapes = {k: v.shape for k, v in found.items()}
    assert shapes == {
        "boxes": (count, limit, 4),
        "scores": (count, limit),
        "classes": (count, limit),
    }
    assert {k: str(v.dtype) for k, v in found.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "classes": "int32",
    }
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"].max(axis=(0, 1)) <= (96, 64, 96, 64)).all()
    empty = found["classes"] == -1
    assert (found["scores"][empty] == 0).all()
    assert (found["boxes"][empty] == 0).all()
    assert found["classes"].max() < CLASSES


def check_same(found, wanted):
    assert np.abs(found["scores"] - wanted["scores"]).max() < 1e-5
    assert (found["classes"] == wanted["classes"]).all()
    assert np.abs(found["boxes"] - wanted["boxes"]).max() < 1e-3


@pytest.mark.parametrize(
    "family",
    [name if name == "convmlp" else long(name) for name in BACKBONES],
)
def test_saved_configured_and_merged(family, tmp_path):
    model = spread(detector(family))
    x = images()
    found = run(model, x, training=False)
    check_detections(found)
    assert (found["classes"] >= 0).any()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is RetinaNet
    assert loaded.get_config() == model.get_config()
    maps = raw(model, x)
    check_same(run(loaded, x, training=False), found)
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]

    merged = kmlp.merge(model)
    assert not isinstance(merged, RetinaNet)
    norms = (keras.layers.BatchNormalization,)
    assert not [la for la in merged._flatten_layers() if isinstance(la, norms)]
    maps_merged = keras.tree.flatten(run(kmlp.merge(model._raw), x))
    assert max(map(relative, maps_merged, maps)) < 1e-5
    check_same(run(merged, x), found)


@pytest.mark.parametrize(
    ("family", "policy", "tolerance"),
    [
        long("convmlp", "bfloat16", 0.2),
        ("convmlp", "float16", 0.03),
        long("msmlp", "float16", 0.03),
    ],
)
def test_mixed_precision(family, policy, tolerance):
    policy = f"mixed_{policy}"
    model = detector(family, backbone(family, dtype=policy), dtype=policy)
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert model.get_layer("class_head").dtype_policy.name == policy
    x = images()
    check_detections(run(model, x, training=False))
    full = detector(family)
    full.set_weights(model.get_weights())
    for low, high in zip(raw(model, x), raw(full, x)):
        assert low.dtype == "float32"
        assert np.abs(low - high).max() < tolerance * max(np.abs(high).max(), 0.1)
    # Rounded to the low precision: some difference there must be.
    assert max(map(relative, raw(model, x), raw(full, x))) > 1e-6
    losses = losses_of(model, x)
    assert all(v.dtype == "float32" and np.isfinite(v).all() for v in losses.values())


def tensors(targets):
    return {k: ops.convert_to_tensor(v) for k, v in targets.items()}


@pytest.mark.parametrize("family", few(ANY_SIZE, ANY_SIZE[0]))
def test_any_size(family):
    fixed = spread(detector(family))
    free = detector(family, backbone(family, (None, None, 3)))
    free.set_weights(fixed.get_weights())
    x = images()
    check_same(run(free, x), run(fixed, x))
    losses = [losses_of(m, x) for m in (free, fixed)]
    assert losses[0]["class"] == pytest.approx(losses[1]["class"], rel=1e-5)
    assert losses[0]["box"] == pytest.approx(losses[1]["box"], rel=1e-5)
    if family == "convmlp":
        compiled(free, keras.optimizers.SGD(0.01))
        losses = free.fit(x[:, :50, :75], TARGETS, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
    # A graph of unknown sizes.
    found = free.predict(x[:1, :33, :41], verbose=0)
    assert found["boxes"].shape == (1, 100, 4)
    assert (found["boxes"].max(axis=(0, 1)) <= (41, 33, 41, 33)).all()


@pytest.mark.parametrize("arguments", [{}, {"box_loss": "smooth_l1", "focal_gamma": 1}])
def test_losses_as_written_out(arguments):
    model = spread(detector(**arguments))
    x = images()
    outputs = run(model, x, training=True)
    found = losses_of(model, x)
    logits, codes = (
        np.concatenate([m.reshape(2, -1, d) for m in outputs[k]], 1)
        for k, d in (("class", CLASSES), ("box", 4))
    )
    shapes = [m.shape[1:3] for m in outputs["class"]]
    assert shapes == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    anchors = np.array(
        [
            (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            for level, (rows, columns) in enumerate(shapes)
            for y in np.arange(rows) * 8 * 2**level
            for x in np.arange(columns) * 8 * 2**level
            for ratio in (0.5, 1, 2)
            for side in 32 * 2**level * 2 ** (np.arange(3) / 3)
            for w, h in [(side / ratio**0.5, side * ratio**0.5)]
        ]
    )
    sums, positives = {"class": np.zeros(2), "box": np.zeros(2)}, []
    gamma = arguments.get("focal_gamma", 2)
    for image, count in enumerate((2, 0)):
        boxes = TARGETS["boxes"][image, :count]
        iou = np.array([[overlap(a, b) for b in boxes] for a in anchors])
        # Anchors that tie do so in exact arithmetic.
        iou = np.round(iou.reshape(len(anchors), count), 6)
        index, label = matched(iou, 0.5, 0.4, True, 0.0)
        positives.append(max((label == 1).sum(), 1))
        for i in np.flatnonzero(label >= 0):
            t = np.zeros(CLASSES)
            if label[i] == 1:
                t[TARGETS["classes"][image, index[i]]] = 1
                (ax, ay, aw, ah), (bx, by, bw, bh) = (
                    ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1])
                    for b in (anchors[i], boxes[index[i]])
                )
                code = [(bx - ax) / aw, (by - ay) / ah, np.log(bw / aw)]
                d = np.abs(codes[image, i] - [*code, np.log(bh / ah)])
                if "box_loss" in arguments:
                    d = np.where(d < 1 / 9, 4.5 * d * d, d - 1 / 18)
                sums["box"][image] += d.sum()
            p = 1 / (1 + np.exp(-logits[image, i].astype("float64")))
            right = np.where(t == 1, p, 1 - p)
            focal = -((1 - right) ** gamma) * np.log(right)
            sums["class"][image] += (np.where(t == 1, 0.25, 0.75) * focal).sum()
    assert positives[0] > 5
    assert positives[1] == 1
    for name, values in sums.items():
        # Divided by the batch's positives, and the mean over images is minimised.
        assert found[name] == pytest.approx(values * 2 / sum(positives), rel=1e-4)
    assert found["box"][0] > 0
    assert found["box"][1] == 0


def test_detections_by_hand():
    """Two levels of one square anchor at strides 8 and 16, two classes."""
    layer = DenseDetections(
        2, scales=(4,), ratios=(1,), strides=(8, 16), max_detections=5
    )
    fine, codes = np.full((1, 2, 2, 2), -10.0), np.zeros((1, 2, 2, 4))
    fine[0, 1, 0, 1] = 2  # at x 0, y 8: 32 wide
    fine[0, 1, 1] = 0, 1  # at x 8, y 8, moved onto the first
    codes[0, 1, 1, 0] = -0.25
    fine[0, 0, 1] = -3  # a score of 0.047
    coarse = np.array([[[[3.0, -10.0]]]])  # 64 wide at the origin, moved and halved
    moved = np.array([[[[0.5, 0.25, np.log(0.5), 0.0]]]])
    inputs = {
        "images": np.zeros((1, 60, 60, 3)),
        "class": [fine, coarse],
        "box": [codes, moved],
    }
    inputs = keras.tree.map_structure(
        lambda x: ops.convert_to_tensor(x.astype("float32")), inputs
    )
    found = run(layer, inputs)
    assert found["classes"].tolist() == [[0, 1, 0, -1, -1]]
    scores = [1 / (1 + np.exp(-x)) for x in (3, 2, 0)]
    assert found["scores"][0] == pytest.approx([*scores, 0, 0], rel=1e-6)
    first = [16, 0, 48, 48]
    second = [0, 0, 16, 24]
    assert found["boxes"][0] == pytest.approx(
        np.array([first, second, second, [0] * 4, [0] * 4])
    )
    config = {**layer.get_config(), "candidates": 1}
    found = run(DenseDetections.from_config(config), inputs)
    assert found["classes"].tolist() == [[0, 1, -1, -1, -1]]


SHEET = [("convmlp", 80), ("msmlp", 80), ("repmlpnet", 80), ("smlpnet", 80)]


@pytest.mark.parametrize(("family", "classes"), SHEET)
def test_trainable_parameters_past_the_backbone(family, classes):
    taps = backbone(family)
    _, c3, c4, c5 = (tap.shape[-1] for tap in taps.pyramid_outputs.values())
    model = RetinaNet(taps, classes)
    past = count_parameters(model.trainable_weights)
    past -= count_parameters(model.backbone.trainable_weights)
    norms = 2 * (c3 + c4 + c5) if family == "msmlp" else 0
    assert past == 8_824_564 + 256 * (c3 + c4) + 2560 * c5 + norms


@pytest.mark.parametrize(
    ("arch", "total"),
    [("convmlp_s", 18.74), ("convmlp_m", 27.13), ("convmlp_l", 52.90)]
    + [("msmlp_t", 38.83)],
)
def test_counts_of_the_papers(arch, total):
    taps = kmlp.models.create_model(
        arch, input_shape=(None, None, 3), include_top=False
    )
    found = count_parameters(RetinaNet(taps, 80).trainable_weights) / 1e6
    assert found == pytest.approx(total, abs=0.0051)


def test_heads_start_as_published():
    model = detector("convmlp", fpn_filters=64)
    classes, boxes = model.get_layer("class_head"), model.get_layer("box_head")
    assert host(classes.predict.bias) == pytest.approx(np.log(0.01 / 0.99), rel=1e-6)
    assert (host(boxes.predict.bias) == 0).all()
    kernels = [head.tower[0].conv.kernel for head in (classes, boxes)]
    for kernel in [*kernels, classes.predict.kernel, boxes.predict.kernel]:
        assert host(kernel).std() == pytest.approx(0.01, rel=0.05)
    assert np.abs(host(kernels[0]) - host(kernels[1])).max() > 0.01
    lateral = host(model.get_layer("fpn").smooth[0].conv.kernel)
    assert np.abs(lateral).max() == pytest.approx((6 / (18 * 64)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("family", few(BACKBONES, "convmlp"))
def test_fit_with_and_without_objects(family):
    model = compiled(detector(family), keras.optimizers.SGD(0.01), eager=True)
    x = images()
    nothing = {k: v[[1, 1]] for k, v in TARGETS.items()}
    for targets in (TARGETS, nothing):
        losses = model.fit(x, targets, batch_size=1, verbose=0).history["loss"]
        assert np.isfinite(losses).all()
        assert losses[0] > 0
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.long
def test_learns_one_image():
    keras.utils.set_random_seed(0)
    model = detector("convmlp", fpn_filters=32, score_threshold=0.3)
    compiled(model, keras.optimizers.Adam(2e-3))
    x, targets = images()[:1], {k: v[:1] for k, v in TARGETS.items()}
    losses = model.fit(x, targets, epochs=45, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    assert model.evaluate(x, targets, verbose=0) < 0.3 * losses[0]
    found = {k: v[0] for k, v in run(model, x, training=False).items()}
    for box, name in zip(TARGETS["boxes"][0, :2], TARGETS["classes"][0, :2]):
        own = [b for b, c in zip(found["boxes"], found["classes"]) if c == name]
        assert overlap(own[0], box) > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes=0"),
        ({"box_loss": "l2"}, "one of l1, smooth_l1. Received: box_loss='l2'"),
        ({"prior": 1.0}, "prior=1.0"),
        ({"tap_norm": "batch"}, "tap_norm='batch'"),
        ({"backbone": "resnet"}, "'resnet'"),
    ],
)
def test_refuses(arguments, message):
    arguments = {"backbone": backbone("convmlp"), "num_classes": 3, **arguments}
    with pytest.raises(ValueError, match=message):
        RetinaNet(**arguments)
