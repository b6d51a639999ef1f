"""The dense recipes against the papers, and what the command line makes of them."""

import dataclasses
import json

import pytest

import kmlp
from kmlp import detection, segmentation
from kmlp.analysis.complexity import count_parameters, profile, shapes_only
from kmlp.errors import KmlpError
from kmlp.recipes import (
    REPORTED,
    DenseRecipe,
    dense_recipe_for,
    dense_recipes,
    dense_table,
    describe,
    from_json,
    override,
    to_json,
)

COCO = {
    **{"task": "detection", "data": "coco:DIR", "batch_size": 16, "steps": None},
    **{"optimizer": "adamw", "learning_rate": 1e-4, "schedule": "step"},
    **{"warmup_steps": 500, "warmup_ratio": 1e-3, "long_side": 1333, "epochs": 12},
    **{"milestones": (8, 11), "short_sides": (800, 800), "flip": 0.5},
    **{"photometric": False, "mask_size": 112, "min_box": 1.0},
}
CONVMLP = {**COCO, "weight_decay": 1e-4}
MSMLP = {**COCO, "weight_decay": 0.05}
LONG = {"epochs": 36, "milestones": (27, 33), "short_sides": (480, 800)}
CROPS = {
    **{"task": "segmentation", "epochs": None, "batch_size": 16, "flip": 0.5},
    **{"scale_range": (0.5, 2), "max_class_share": 0.75, "photometric": True},
    **{"test_mode": "whole", "short_sides": None, "milestones": ()},
}
ADE20K = {
    **CROPS,
    **{"data": "ade20k:DIR", "image_size": (512, 512), "resize_to": (2048, 512)},
    **{"optimizer": "adamw", "final_rate": 0.0},
}
# Transcribed from the papers, and from the frameworks whose defaults they name.
PUBLISHED = {
    "convmlp_coco_retinanet": {**CONVMLP, "head": "retinanet"},
    "convmlp_coco_mask_rcnn": {**CONVMLP, "head": "mask_rcnn"},
    "convmlp_ade20k": {
        **ADE20K,
        **{"head": "semantic_fpn", "steps": 40_000, "learning_rate": 2e-4},
        **{"weight_decay": 1e-4, "schedule": "poly", "power": 0.9, "warmup_steps": 0},
    },
    "msmlp_coco_retinanet_1x": {**MSMLP, "head": "retinanet"},
    "msmlp_coco_mask_rcnn_1x": {**MSMLP, "head": "mask_rcnn"},
    "msmlp_coco_mask_rcnn_3x": {**MSMLP, **LONG, "head": "mask_rcnn"},
    "msmlp_coco_cascade_3x": {
        **MSMLP,
        **LONG,
        **{"head": "cascade_mask_rcnn", "sync_batchnorm": True},
        "head_arguments": {"box_head": "4conv1fc"},
    },
    "msmlp_ade20k": {
        **ADE20K,
        **{"head": "upernet", "steps": 160_000, "learning_rate": 6e-5},
        **{"weight_decay": 0.01, "schedule": "linear", "warmup_steps": 1500},
        **{"warmup_ratio": 1e-6, "drop_path": 0.2},
    },
    "repmlpnet_cityscapes": {
        **CROPS,
        **{"data": "cityscapes:DIR", "head": "upernet", "steps": 80_000},
        **{"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01},
        **{"weight_decay": 5e-4, "schedule": "poly", "power": 0.9},
        **{"final_rate": 1e-4, "warmup_steps": 0, "image_size": (512, 1024)},
        **{"resize_to": (2048, 1024), "test_size": (1024, 2048)},
        "model": {"downsample": "conv3", "block_size": (64, 64)},
    },
}
EMBEDDED = {
    "scenes_detection": {"task": "detection", "data": "scenes", "mask_size": 56},
    "scenes_segmentation": {"task": "segmentation", "data": "scenes"},
}


def test_every_recipe_is_checked_here():
    assert set(dense_recipes()) == {*PUBLISHED, *EMBEDDED}
    for name, recipe in dense_recipes().items():
        assert recipe.name == name
        assert recipe.reproduces
        assert describe(recipe).startswith(f"Recipe {name}: {recipe.reproduces}\n")


@pytest.mark.parametrize(("name", "fields"), (PUBLISHED | EMBEDDED).items())
def test_values_are_the_papers(name, fields):
    recipe = dense_recipes()[name]
    assert {field: getattr(recipe, field) for field in fields} == fields
    if name in PUBLISHED:
        assert recipe.mean == (0.485, 0.456, 0.406)
        assert recipe.std == (0.229, 0.224, 0.225)
        assert (recipe.beta_1, recipe.beta_2) == (0.9, 0.999)
        assert recipe.clip_norm is None
    if recipe.task == "detection" and name in PUBLISHED:
        # Both orientations fit on the canvas, in whole strides of 32.
        assert min(recipe.image_size) >= recipe.long_side
        assert all(side % 32 == 0 for side in recipe.image_size)
    assert from_json(json.loads(json.dumps(to_json(recipe))), DenseRecipe) == recipe


# The papers' rows of our backbones, as their texts have them.
TABLES = {
    ("RepMLPNet, Table 5", "repmlpnet_cityscapes"): """
        RepMLPNet-D256          1960.01G 76.27
        RepMLPNet-D256 (conv5)  1960.16G 77.12""",
    ("ConvMLP, Table 5", "convmlp_coco_retinanet"): """
        ConvMLP-S 18.7M 37.2 56.4 39.8 20.1 40.7 50.4
        ConvMLP-M 27.1M 39.4 58.7 42.0 21.5 43.2 52.5
        ConvMLP-L 52.9M 40.2 59.3 43.3 23.5 43.8 53.3""",
    ("ConvMLP, Table 6", "convmlp_coco_mask_rcnn"): """
        ConvMLP-S 28.7M 38.4 59.8 41.8 35.7 56.7 38.2
        ConvMLP-M 37.1M 40.6 61.7 44.5 37.2 58.8 39.8
        ConvMLP-L 62.2M 41.7 62.8 45.5 38.2 59.9 41.1""",
    ("ConvMLP, Table 7", "convmlp_ade20k"): """
        ConvMLP-S 12.8M 35.8
        ConvMLP-M 21.1M 38.6
        ConvMLP-L 46.3M 40.0""",
    ("MS-MLP, Table 6", "msmlp_coco_retinanet_1x"): """
        MS-MLP-T 39.6M / 265G 42.7 26.0 47.3 59.7
        MS-MLP-S 61.2M / 360G 45.0 28.2 48.9 60.4
        MS-MLP-B 97.3M / 544G 45.7 27.8 49.2 59.7""",
    ("MS-MLP, Table 6", "msmlp_coco_mask_rcnn_1x"): """
        MS-MLP-T 49.8M / 269G 44.4 67.8 47.8 40.4 61.3 44.2
        MS-MLP-S 70.9M / 372G 47.1 71.1 51.6 41.9 64.1 45.1
        MS-MLP-B 107.5M / 557G 46.4 67.2 50.7 42.4 63.6 46.4""",
    ("MS-MLP, Table 7", "msmlp_ade20k"): """
        MS-MLP-T 61M 939G 46.0 46.8
        MS-MLP-S 82M 1028G 48.7 49.6
        MS-MLP-B 122M 1172G 49.1 49.9""",
    ("MS-MLP, Table 8", "msmlp_coco_retinanet_1x"): """
        MS-MLP+Swin-T 38.5M / 262G 42.0 24.5 45.4 57.4
        MS-MLP+Focal-Attention-T 39.4M / 284G 44.3 27.0 47.3 58.9
        MS-MLP+Swin-S 59.9M / 344G 45.2 27.9 48.4 59.5
        MS-MLP+Focal-Attention-S 62.0M / 354G 45.8 27.8 51.0 60.5
        MS-MLP+Swin-B 98.7M / 502G 45.3 28.0 49.4 59.5
        MS-MLP+Focal-Attention-B 104.2M / 609G 46.6 28.8 50.4 62.2""",
    ("MS-MLP, Table 8", "msmlp_coco_mask_rcnn_1x"): """
        MS-MLP+Swin-T 49.8M / 269G 42.7 64.8 45.9 39.5 59.8 42.3
        MS-MLP+Focal-Attention-T 44.8M / 299G 44.6 65.7 48.7 40.6 62.6 44.7
        MS-MLP+Swin-S 69.1M / 379G 45.3 67.2 49.6 41.0 64.1 44.1
        MS-MLP+Focal-Attention-S 72.7M / 446G 47.5 66.5 52.3 43.0 67.3 46.4
        MS-MLP+Swin-B 108.6M / 561G 47.2 69.5 51.3 42.8 66.0 46.3
        MS-MLP+Focal-Attention-B 116.9M / 647G 47.9 70.6 52.4 43.4 67.8 47.8""",
    ("MS-MLP, Table 11", "msmlp_coco_mask_rcnn_3x"): """
        MS-MLP-T 262G 46.2 67.8 50.8 41.7 65.2 45.0
        MS-MLP-S 424G 48.6 70.8 53.4 43.7 67.7 47.2
        MS-MLP-B 561G 49.0 70.0 52.6 43.7 65.4 46.7""",
    ("MS-MLP, Table 11", "msmlp_coco_cascade_3x"): """
        MS-MLP-T 744G 50.4 69.2 54.6 43.7 66.5 47.6
        MS-MLP-S 841G 51.9 70.8 56.6 43.7 66.5 47.3
        MS-MLP-B 986G 52.6 71.4 57.2 45.4 68.9 49.3""",
}
MASKS = ["AP", "AP50", "AP75", "mask AP", "mask AP50", "mask AP75"]
HEADERS = {
    "retinanet": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "mask_rcnn": MASKS,
    "cascade_mask_rcnn": MASKS,
    "semantic_fpn": ["mIoU"],
    "upernet": ["mIoU", "MS mIoU"],
}


def printed(row):
    """A row as its paper prints it, without spaces."""
    parts = [row.backbone]
    parts += [] if row.parameters is None else [f"{row.parameters}M"]
    parts += [] if row.flops is None else [f"{row.flops}G"]
    return "".join([*parts, *map(str, row.figures.values())]).replace(" ", "")


def test_every_number_stands_in_the_papers():
    rows = {}
    for row in REPORTED:
        rows.setdefault((row.table, row.recipe), []).append(row)
    assert rows.keys() == TABLES.keys()
    for key, text in TABLES.items():
        lines = [line.replace("/", "").replace(" ", "") for line in text.split("\n")]
        assert [printed(row) for row in rows[key]] == lines[1:]
    for row in REPORTED:
        header = HEADERS[dense_recipes()[row.recipe].head]
        if row.table.startswith("MS-MLP") and "retinanet" in row.recipe:
            header = ["AP", "APs", "APm", "APl"]
        if row.table.startswith("RepMLPNet"):
            header = ["mIoU"]
        assert list(row.figures) == header
        assert row.table in dense_recipes()[row.recipe].reproduces.replace(
            "Tables 6 and 8", row.table.partition(", ")[2]
        )


def test_the_table_has_command_rows_and_our_counts():
    text = dense_table("detection")
    assert "--arch msmlp_t --recipe msmlp_coco_retinanet_1x --data coco:DIR" in text
    cells = "MS-MLP-T 39.6 38.83 265 242.62 42.7 26.0 47.3 59.7"
    assert cells in " ".join(text.split())
    cells = "MS-MLP+Swin-T 38.5 38.44 262 252.31 42.0 24.5 45.4 57.4"
    assert cells in " ".join(text.split())
    assert "ConvMLP-S 28.7 28.66 218.68 38.4 59.8" in " ".join(text.split())
    assert "mIoU" not in text
    text = " ".join(dense_table("segmentation").split())
    assert "RepMLPNet-D256 (conv5) 116.73 1960.16 1955.40 77.12" in text


# ResMLP and Mixer have one level of features, which is no pyramid.
HIERARCHICAL = [
    name
    for name in kmlp.list_models("*_[ts]*")
    if name.partition("_")[0] not in ("resmlp", "mlp")
]


@pytest.mark.parametrize("arch", HIERARCHICAL)
def test_backbones_of_the_scenes_can_be_built(arch):
    recipe = dense_recipe_for(arch, "detection")
    assert recipe.model
    with shapes_only():
        kmlp.create_model(
            arch, input_shape=(*recipe.image_size, 3), include_top=False, **recipe.model
        )


def test_every_network_of_ours_is_counted():
    """Near what the papers state; ConvMLP to the digit that they print."""
    for row in REPORTED:
        parameters, macs = row.counted
        assert (macs is None) == ("focal" in row.arch)
        if row.parameters is not None:
            # Table 8 states less for Mask R-CNN over Focal-T than head and backbone
            # have together, and more over Focal-B.
            loose = 0.12 if "focal" in row.arch else 0.05
            near = loose * row.parameters
            if row.arch.startswith("convmlp"):
                near = 0.06
            assert abs(parameters - row.parameters) <= near
        if None not in (row.flops, macs):
            # The paper's Table 6, and Mask R-CNN of Table 11, are loose.
            assert macs == pytest.approx(row.flops, rel=0.19)


# Classes, and height and width at which the papers count.
COUNTED_AT = {
    "coco:DIR": (80, (800, 1280)),
    "ade20k:DIR": (150, (512, 2048)),
    "cityscapes:DIR": (19, (1024, 2048)),
}
HEADS = {
    "retinanet": detection.RetinaNet,
    "mask_rcnn": detection.MaskRCNN,
    "cascade_mask_rcnn": detection.CascadeMaskRCNN,
    "semantic_fpn": segmentation.SemanticFPN,
    "upernet": segmentation.UperNet,
}
# Sizes that Focal's windows of 7 tile at strides of up to 32.
FOCAL_TILE = 224


def count(row):
    """Build a row's network; return its parameters and multiply-adds.

    The latter are `None` where Focal's windows do not tile the size of the paper. As
    in the papers, what only training needs is counted, moving statistics are not; of
    the two-stage heads all proposals are.
    """
    recipe = dense_recipes()[row.recipe]
    classes, size = COUNTED_AT[recipe.data]
    tiled = "focal" not in row.arch
    if not tiled:
        size = tuple(-(-s // FOCAL_TILE) * FOCAL_TILE for s in size)
    with shapes_only():
        backbone = kmlp.create_model(
            row.arch,
            input_shape=(*size, 3),
            include_top=False,
            **recipe.model | row.model,
        )
        model = HEADS[recipe.head](backbone, classes, **recipe.head_arguments)
    parameters = count_parameters(model.trainable_weights)
    return parameters, profile(model).macs if tiled else None


@pytest.mark.long
@pytest.mark.parametrize(
    "row", REPORTED, ids=lambda row: f"{row.recipe}-{row.backbone}"
)
def test_counts_are_those_of_the_networks(row):
    parameters, macs = count(row)
    macs = macs and macs / 1e9
    assert row.counted == pytest.approx((parameters / 1e6, macs), abs=0.0051)


@pytest.mark.parametrize(
    ("arguments", "name", "head"),
    [
        (("smlpnet_t", "detection"), "scenes_detection", None),
        (("convmlp_s", "detection", "scenes", "mask_rcnn"), "scenes_detection", None),
        (("convmlp_m", "segmentation"), "scenes_segmentation", None),
        (("convmlp_m", "detection", "coco:x"), "convmlp_coco_retinanet", None),
        (
            ("convmlp_m", "detection", "coco:x", "mask_rcnn"),
            "convmlp_coco_mask_rcnn",
            None,
        ),
        (
            ("msmlp_t", "detection", "coco:x", "cascade_mask_rcnn"),
            "msmlp_coco_cascade_3x",
            None,
        ),
        (("msmlp_b", "segmentation", "ade20k:x"), "msmlp_ade20k", None),
        (
            ("msmlp_b", "segmentation", "ade20k:x", "semantic_fpn"),
            "msmlp_ade20k",
            "semantic_fpn",
        ),
        (("repmlpnet_d256", "segmentation", "cityscapes:/c"), None, "upernet"),
    ],
)
def test_implied_recipes(arguments, name, head):
    arch, task, data, wanted = (*arguments, None, None)[:4]
    recipe = dense_recipe_for(arch, task, data=data, head=wanted)
    assert recipe.name == (name or "repmlpnet_cityscapes")
    assert recipe.head == (wanted or head or dense_recipes()[recipe.name].head)


def test_another_head_leaves_the_arguments_of_the_first():
    recipe = dense_recipe_for(
        "x", "detection", name="msmlp_coco_cascade_3x", head="mask_rcnn"
    )
    assert (recipe.head, recipe.head_arguments) == ("mask_rcnn", {})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "convmlp_coco_retinnet"}, "choose convmlp_coco_retinanet"),
        ({"name": "msmlp_ade20k"}, "Unknown recipe of detection"),
        ({"head": "upernet"}, "retinanet or mask_rcnn or cascade_mask_rcnn. Received"),
        (
            {"data": "coco:x", "arch": "smlpnet_t"},
            "No paper trains smlpnet_t on coco: choose --recipe convmlp_coco_retinanet",
        ),
    ],
)
def test_recipes_that_there_are_not_stop(arguments, words):
    with pytest.raises(KmlpError) as stopped:
        dense_recipe_for(**{"arch": "convmlp_s", "task": "detection"} | arguments)
    assert words in str(stopped.value)
    assert "Received: " in str(stopped.value)


OVERRIDES = [
    ("milestones=6,9", "milestones", (6, 9)),
    ("milestones=6", "milestones", (6,)),
    ("image_size=1408,1344", "image_size", (1408, 1344)),
    ("drop_path=0.1", "drop_path", 0.1),
    ("head=mask_rcnn", "head", "mask_rcnn"),
    ("photometric=true", "photometric", True),
    ("head_arguments.box_loss=giou", "head_arguments", {"box_loss": "giou"}),
    ("model.widths=8,16", "model", {"widths": (8, 16)}),
    ("head_arguments=none", "head_arguments", {}),
]


@pytest.mark.parametrize(("setting", "field", "value"), OVERRIDES)
def test_overrides_are_typed_by_the_field(setting, field, value):
    base = dense_recipes()["convmlp_coco_retinanet"]
    changed = override(base, [setting])
    assert getattr(changed, field) == value
    assert dataclasses.replace(changed, **{field: getattr(base, field)}) == base
    assert changed == base or field in describe(changed, base).splitlines()[-1]


# Recipe, settings, and what the one line says.
DETECTS, SEGMENTS = "convmlp_coco_retinanet", "msmlp_ade20k"
MISTAKES = [
    (DETECTS, ["epoch=3"], "choose epochs. Received: epoch=3"),
    (DETECTS, ["task=segmentation"], "task describes the recipe"),
    (DETECTS, ["head=upernet"], "A head for detection is retinanet or"),
    (DETECTS, ["optimizer=lamb"], "adamw or sgd. Received: optimizer=lamb"),
    (DETECTS, ["momentum=1"], "a number in [0, 1). Received: momentum=1"),
    (DETECTS, ["image_size=800"], "2 numbers with commas between them of at least 1"),
    (DETECTS, ["image_size=800,1333.5"], "2 numbers"),
    (DETECTS, ["short_sides=800,480"], "low and high"),
    (DETECTS, ["short_sides=none"], "short_sides and long_side are given together"),
    (DETECTS, ["milestones=11,8"], "of at least 1 that rise. Received"),
    (DETECTS, ["milestones=none"], "milestones belong to schedule=step"),
    (DETECTS, ["schedule=poly"], "milestones belong to schedule=step"),
    (DETECTS, ["milestones=8,13"], "beyond the run: lower milestones"),
    (DETECTS, ["steps=100"], "set one of them, and none for the other"),
    (DETECTS, ["epochs=none", "steps=100"], "milestones are epochs"),
    (DETECTS, ["validate_every=5"], "validate_every must divide the run"),
    (DETECTS, ["scale_range=0.5,2"], "scale_range has no meaning in detection"),
    (DETECTS, ["test_mode=slide"], "test_mode has no meaning in detection"),
    (DETECTS, ["accumulate=3"], "must divide batch_size"),
    (DETECTS, ["head_arguments=3"], "head_arguments.NAME=VALUE"),
    (SEGMENTS, ["long_side=1333"], "long_side has no meaning in segmentation"),
    (SEGMENTS, ["resize_to=512,2048"], "the long side first, or none. Received"),
    (SEGMENTS, ["scale_range=0,2"], "above 0, low and high"),
    (SEGMENTS, ["max_class_share=0"], "in (0, 1]"),
    (SEGMENTS, ["test_mode=slide"], "needs test_size and a test_stride"),
    (
        SEGMENTS,
        ["test_mode=slide", "test_size=512,512", "test_stride=341,600"],
        "test_stride of at most as much",
    ),
    (SEGMENTS, ["warmup_steps=160001"], "The warm-up is longer than the run"),
    (SEGMENTS, ["mean=0.5,0.5,1.5"], "in [0, 1]"),
    (SEGMENTS, ["power=0"], "a number above 0"),
]


@pytest.mark.parametrize(("name", "settings", "words"), MISTAKES)
def test_mistakes_stop_with_one_line(name, settings, words):
    with pytest.raises(KmlpError) as stopped:
        override(dense_recipes()[name], settings)
    assert words in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert "Received: " in str(stopped.value)


def test_length_of_a_run():
    recipe = dense_recipes()["msmlp_ade20k"]
    assert recipe.length(1263) == (10, 16_000)
    assert dense_recipes()["msmlp_coco_retinanet_1x"].length(7392) == (12, 7392)
    rarely = override(dense_recipes()["msmlp_coco_cascade_3x"], ["validate_every=12"])
    assert rarely.length(100) == (3, 1200)


def test_a_run_of_another_length():
    recipe = dense_recipes()["msmlp_coco_cascade_3x"].shortened(12)
    assert (recipe.epochs, recipe.milestones) == (12, (9, 11))
    assert recipe.warmup_steps == 167
    one = recipe.shortened(1)
    assert (one.epochs, one.milestones) == (1, (1,))
    recipe = dense_recipes()["msmlp_ade20k"].shortened(16_000)
    assert (recipe.steps, recipe.validate_every) == (16_000, 16_000)
    assert recipe.warmup_steps == 150
    assert recipe.shortened(100).length(7) == (1, 100)


def test_description_shows_everything():
    for name in ("msmlp_coco_cascade_3x", "repmlpnet_cityscapes"):
        recipe = dense_recipes()[name]
        text = describe(recipe)
        hidden = {*recipe.DESCRIPTIVE, "model", "head_arguments"}
        for field in dataclasses.fields(recipe):
            assert f" {field.name} " in text or field.name in hidden
        assert all(len(line) <= 88 for line in text.splitlines())
        for name in (*recipe.model, *recipe.head_arguments):
            assert f" {name} " in text
