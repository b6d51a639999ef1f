"""Mask R-CNN and its cascade as models."""

import functools
import itertools

import keras
import numpy as np
import pytest
from cases import long, randomize, run

import kmlp
from kmlp.detection import CascadeMaskRCNN, MaskRCNN, mask_rcnn
from kmlp.detection.boxes import iou

numpy = keras.ops.convert_to_numpy
SMALL = {
    "fpn_filters": 16,
    "candidates": 60,
    "training_candidates": 60,
    "proposals": 20,
    "training_proposals": 30,
    "roi_samples": 16,
    "fc_units": 24,
    "mask_convs": 1,
    "mask_filters": 8,
    "max_detections": 6,
}
CASES = {
    "mask_rcnn": (MaskRCNN, {}),
    "faster_rcnn": (MaskRCNN, {"masks": False}),
    "cascade": (CascadeMaskRCNN, {}),
    "cascade_4conv1fc": (
        CascadeMaskRCNN,
        {"box_head": "4conv1fc", "conv_filters": 8, "box_loss": "giou"},
    ),
}
QUICK = [long(case) if case == "cascade_4conv1fc" else case for case in CASES]
# Two objects and none.
TARGETS = {
    "boxes": np.array(
        [[[5, 9, 31, 40], [20, 30, 60, 62], [0, 0, 0, 0]], [[0] * 4] * 3], "float32"
    ),
    "classes": np.array([[0, 2, -1], [-1, -1, -1]], "int32"),
    "masks": np.ones((2, 3, 8, 8), "uint8"),
}


def backbone(input_shape=(64, 64, 3), widths=(10, 12, 14)):
    return kmlp.ConvMLP(
        input_shape=input_shape,
        include_top=False,
        stem_width=8,
        conv_blocks=1,
        widths=widths,
        depths=(1, 1, 1),
        drop_path_rate=0.0,
    )


def detector(case, num_classes=3, input_shape=(64, 64, 3), **changes):
    cls, arguments = CASES[case]
    return cls(backbone(input_shape), num_classes, **{**SMALL, **arguments, **changes})


def randomised(model, seed=0):
    """Random statistics, and predictions that differ from place to place."""
    randomize(model, seed)
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.path.endswith("/kernel"):
            spread = np.prod(variable.shape[:-1]) ** -0.5
            variable.assign(random.normal(0, spread, variable.shape))
    return model


def images(shape=(64, 64, 3), seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def losses(model, x, targets=TARGETS):
    def call(x, targets):
        outputs = model(x, training=True)
        return model.losses_of(outputs, targets)

    targets = {k: keras.ops.convert_to_tensor(v) for k, v in targets.items()}
    with keras.StatelessScope():
        found = call(x, targets)
    return {key: numpy(value) for key, value in found.items()}


def parameters(weights):
    return sum(int(np.prod(v.shape)) for v in weights)


# What the formulas of the heads take for each class.
PER_CLASS = {"mask_rcnn": 5382, "cascade": 3846, "cascade_4conv1fc": 16146}
FORMULAS = {
    "mask_rcnn": 19905264,
    "cascade": 52833534,
    "cascade_4conv1fc": 57740466,
}


@pytest.mark.parametrize(
    ("case", "num_classes", "widths"),
    [
        ("mask_rcnn", 80, (10, 12, 14)),
        ("mask_rcnn", 3, (16, 24, 32)),
        ("cascade", 80, (10, 12, 14)),
        ("cascade", 20, (16, 24, 32)),
        ("cascade_4conv1fc", 80, (10, 12, 14)),
        ("cascade_4conv1fc", 7, (12, 8, 4)),
    ],
)
def test_parameters_equal_the_formulas(case, num_classes, widths):
    cls, arguments = CASES[case]
    arguments = {k: v for k, v in arguments.items() if k != "conv_filters"}
    model = cls(backbone(widths=widths), num_classes, **arguments)
    found = parameters(model.trainable_weights)
    found -= parameters(model.backbone.trainable_weights)
    expected = FORMULAS[case] + 256 * (8 + sum(widths))
    assert found == expected + PER_CLASS[case] * (num_classes - 80)


@pytest.mark.parametrize(
    ("architecture", "total", "norms"),
    [("convmlp_s", 28.66, 0), ("msmlp_t", 48.16, 2880)],
)
def test_totals_are_those_of_the_papers(architecture, total, norms):
    below = kmlp.create_model(
        architecture, input_shape=(None, None, 3), include_top=False
    )
    model = MaskRCNN(below, 80)
    assert round(parameters(model.trainable_weights) / 1e6, 2) == total
    own = [w for w in model.trainable_weights if "tap_norm" in w.path]
    assert parameters(own) == norms


def test_multiply_adds_by_hand():
    model = detector("mask_rcnn")
    macs = {row.name: row.macs for row in kmlp.profile(model).layers}
    box = 20 * (49 * 16 * 24 + 24 * 24 + 24 * 4 + 24 * 12)
    mask = 6 * (196 * 9 * 16 * 8 + 196 * 4 * 8 * 8 + 784 * 8 * 3)
    assert macs["box_head"] == box
    assert macs["mask_head"] == mask
    # The profile has a row for each level; their sizes are 16, 8, 4, 2, 1.
    rows = [row.macs for row in kmlp.profile(model).layers if row.name == "rpn"]
    assert rows == [s * s * (9 * 16 * 16 + 16 * 15) for s in (16, 8, 4, 2, 1)]
    convs = detector("cascade_4conv1fc").box_heads[0]
    assert convs.multiply_adds((None, 20, 7, 7, 16)) == 20 * (
        49 * 9 * (16 * 8 + 3 * 8 * 8) + 49 * 8 * 24 + 24 * 4 + 24 * 12
    )


@functools.cache
def trained_looking(case):
    return randomised(detector(case))


@pytest.mark.parametrize("case", QUICK)
def test_detections_and_losses(case):
    model = trained_looking(case)
    x = images()
    found = run(model, x)
    assert found["boxes"].shape == (2, 6, 4)
    assert found["classes"].dtype == "int32"
    assert (found["scores"] > 0.05).any()
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    assert (found["boxes"] >= 0).all()
    assert (found["boxes"] <= 64).all()
    assert ("masks" in found) == (case != "faster_rcnn")
    if "masks" in found:
        assert found["masks"].shape == (2, 6, 28, 28)
        assert ((found["masks"] >= 0) & (found["masks"] <= 1)).all()

    values = losses(model, x)
    assert set(values) == {"rpn_class", "rpn_box", "class", "box"} | (
        {"mask"} if case != "faster_rcnn" else set()
    )
    for key, value in values.items():
        assert value.shape == (2,)
        assert value.dtype == "float32"
        assert np.isfinite(value).all()
        # Without objects there is only background to learn.
        assert (value[1] > 0) == (key in ("rpn_class", "class")), key
        assert value[0] > 0


def test_no_objects_at_all():
    empty = {k: v[1:].repeat(2, axis=0) for k, v in TARGETS.items()}
    values = losses(trained_looking("cascade"), images(), empty)
    assert all(np.isfinite(v).all() for v in values.values())
    assert not values["box"].any()
    assert not values["mask"].any()
    # An object of zero area is none either.
    flat = {**TARGETS, "boxes": TARGETS["boxes"] * [[[1, 1, 0, 1]]]}
    flat["boxes"][..., 2] = flat["boxes"][..., 0]
    flat["boxes"] = flat["boxes"].astype("float32")
    values = losses(trained_looking("cascade"), images(), flat)
    assert all(np.isfinite(v).all() for v in values.values())
    assert not values["box"].any()


def test_nothing_is_learned_from_an_object_without_a_mask():
    """Its box and class are; 255 stands for the mask that is not there."""
    model = trained_looking("mask_rcnn")
    whole = losses(model, images(), TARGETS)
    absent = TARGETS["masks"].copy()
    absent[0, 1] = 255
    first_alone = losses(model, images(), {**TARGETS, "masks": absent})
    absent[0, 0] = 255
    none = losses(model, images(), {**TARGETS, "masks": absent})
    assert not none["mask"].any()
    assert first_alone["mask"].any()
    assert first_alone["mask"].sum() != whole["mask"].sum()
    for name in ("class", "box", "rpn_class", "rpn_box"):
        np.testing.assert_array_equal(none[name], whole[name])


def test_masks_must_be_given():
    targets = {k: v for k, v in TARGETS.items() if k != "masks"}
    with pytest.raises(ValueError, match="masks=False"):
        losses(trained_looking("mask_rcnn"), images(), targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "Received: num_classes=0"),
        ({"proposals": 0}, "Received: proposals=0"),
        ({"positive_share": 0.0}, "Received: positive_share=0.0"),
        ({"box_loss": "iou"}, "Received: box_loss='iou'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskRCNN(backbone(), **{"num_classes": 3, **SMALL, **arguments})
    with pytest.raises(ValueError, match="Received: box_head='3fc'"):
        CascadeMaskRCNN(backbone(), 3, box_head="3fc")


def test_a_cascade_goes_on_with_moved_boxes(monkeypatch):
    """Boxes that nothing moves come again, without the objects' own."""
    model = detector("cascade", roi_samples=64, positive_share=0.75)
    for head in model.box_heads:
        head.boxes.kernel.assign(0 * head.boxes.kernel)
    seen = []

    def recorded(proposals, targets, sampler, **kwargs):
        regions = original(proposals, targets, sampler, **kwargs)
        seen.append((numpy(proposals), regions, kwargs["positive"]))
        return regions

    original = mask_rcnn.sample_regions
    monkeypatch.setattr(mask_rcnn, "sample_regions", recorded)
    losses(model, images())
    assert [positive for _, _, positive in seen] == [0.5, 0.6, 0.7]
    for (_, before, _), (proposals, _, _) in itertools.pairwise(seen):
        own = numpy(before.is_object)
        assert own.sum() == 2
        boxes = np.where(own[..., None], 0.0, numpy(before.boxes))
        np.testing.assert_allclose(proposals, boxes, atol=1e-4)


def test_the_losses_by_hand():
    """Heads that say nothing: every loss is known from the samples alone."""
    model = detector("mask_rcnn")
    silent = [model.box_heads[0].classes, model.box_heads[0].boxes]
    silent += [model.mask_heads[0].masks.conv, model.get_layer("rpn").objectness.conv]
    for layer in silent:
        layer.kernel.assign(0 * layer.kernel)
    values = losses(model, images())
    for value in (values["rpn_class"], values["mask"]):
        np.testing.assert_allclose(value.mean(), np.log(2), rtol=1e-5)
    np.testing.assert_allclose(values["class"].mean(), np.log(4), rtol=1e-5)


@pytest.mark.parametrize("case", ["mask_rcnn", "cascade", "cascade_4conv1fc"])
def test_merging_changes_nothing(case):
    model = trained_looking(case)
    merged = kmlp.merge(model)
    norms = [
        layer
        for layer in merged._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert not norms
    x = images()
    expected, found = run(model, x), run(merged, x)
    for key, value in expected.items():
        scale = max(np.abs(value).max(), 1.0)
        np.testing.assert_allclose(found[key], value, atol=1e-5 * scale, err_msg=key)


@pytest.mark.parametrize("case", ["mask_rcnn", long("cascade_4conv1fc")])
def test_saving_and_configuration(case, tmp_path):
    model = trained_looking(case)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    twin = type(model).from_config(model.get_config())
    twin.set_weights(model.get_weights())
    x = images()
    expected = run(model, x)
    for other in (loaded, twin):
        assert type(other) is type(model)
        assert other.get_config() == model.get_config()
        assert [w.path for w in other.weights] == [w.path for w in model.weights]
        for key, value in run(other, x).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-5, err_msg=key)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    model = randomised(detector("cascade_4conv1fc", dtype=policy))
    assert model.get_layer("fpn").compute_dtype == policy.removeprefix("mixed_")
    found = run(model, images())
    assert {found[k].dtype.name for k in ("boxes", "scores", "masks")} == {"float32"}
    assert np.isfinite(found["boxes"]).all()
    values = losses(model, images())
    assert all(v.dtype == "float32" for v in values.values())
    assert all(np.isfinite(v).all() for v in values.values())


def test_any_size():
    """A graph of unknown sizes gives what one of known sizes gives."""
    known = trained_looking("mask_rcnn")
    free = detector("mask_rcnn", input_shape=(None, None, 3))
    free.set_weights(known.get_weights())
    x = images()
    expected = run(known, x)
    for key, value in run(free, x).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-3, err_msg=key)
    oblong = images((50, 83, 3))
    found = run(free, oblong)
    assert (found["boxes"].max(axis=(0, 1)) <= [83, 50, 83, 50]).all()
    assert all(np.isfinite(v).all() for v in losses(free, oblong).values())


def drawn():
    """A circle and a square on noise, their boxes and masks."""
    random = np.random.default_rng(0)
    image = random.normal(0, 0.2, (64, 64, 3))
    rows, columns = np.mgrid[:64, :64]
    circle = (rows - 19.5) ** 2 + (columns - 21.5) ** 2 < 14**2
    image[circle] = [1.0, -1.0, 0.5]
    image[36:60, 30:58] = [-1.0, 0.5, 1.0]
    boxes = np.array([[8, 6, 36, 34], [30, 36, 58, 60], [0, 0, 0, 0]], "float32")
    around = (np.mgrid[:28, :28] - 13.5) ** 2
    masks = np.stack([around.sum(axis=0) < 14**2, np.ones((28, 28))])
    masks = np.concatenate([masks, np.zeros((1, 28, 28))]).astype("uint8")
    targets = {"boxes": boxes, "classes": np.array([0, 1, -1], "int32"), "masks": masks}
    targets = {k: np.stack([v, v]) for k, v in targets.items()}
    return np.stack([image, image]).astype("float32"), targets


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="minutes of compilation elsewhere"
)
def test_one_image_is_learned():
    keras.utils.set_random_seed(0)
    model = detector(
        "mask_rcnn", 2, fpn_filters=32, fc_units=64, mask_filters=32, roi_samples=32
    )
    x, targets = drawn()
    model.compile(keras.optimizers.Adam(3e-3, clipnorm=1.0), jit_compile=False)
    for _ in range(60):
        model.train_on_batch(x, targets)
    found = {key: value[0] for key, value in run(model, x).items()}
    assert sorted(found["classes"][:2]) == [0, 1]
    for label in (0, 1):
        box, mask = targets["boxes"][0, label], targets["masks"][0, label] > 0
        place = list(found["classes"]).index(label)
        assert numpy(iou(box[None], found["boxes"][place][None]))[0, 0] > 0.8
        shown = found["masks"][place] > 0.5
        assert (shown & mask).sum() / (shown | mask).sum() > 0.8


def test_evaluation_leaves_statistics_alone():
    model = detector("cascade_4conv1fc")
    for training in (False, True):
        with keras.StatelessScope() as scope:
            outputs = model(images(), training=True)
            value = model.compute_loss(images(), TARGETS, outputs, training=training)
        assert np.isfinite(numpy(value))
        heads = [w for w in model.non_trainable_weights if "box_head" in w.path]
        moved = [scope.get_current_value(w) is not None for w in heads]
        assert len(moved) == 24
        assert set(moved) == {training}
