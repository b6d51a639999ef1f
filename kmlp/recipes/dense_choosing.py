"""The recipes of detection and segmentation by name.

Where a paper leaves something open, the reference framework's published default is
taken, which it names as its own; a recipe's `notes` say so.
"""

import dataclasses

from kmlp.errors import InputError, check_known
from kmlp.recipes.dense_recipe import HEADS, DenseRecipe
from kmlp.typing import Config

ADE20K, CITYSCAPES, COCO, SCENES = "ade20k:DIR", "cityscapes:DIR", "coco:DIR", "scenes"

DECAY_NOTE = (
    "The reference framework decays biases and norms too where nothing else is said."
)
CANVAS_NOTE = (
    "Pictures of either orientation lie on one canvas of 1344x1344, the next multiple "
    "of 32 to 1333; the reference framework pads each batch to its largest picture. "
)
# 12 epochs at 1333x800.
_COCO: Config = {
    "task": "detection",
    "data": COCO,
    "epochs": 12,
    "learning_rate": 1e-4,
    "schedule": "step",
    "milestones": (8, 11),
    "warmup_steps": 500,
    "image_size": (1344, 1344),
    "short_sides": (800, 800),
    "long_side": 1333,
}
_CONVMLP_COCO: Config = {
    **_COCO,
    "weight_decay": 1e-4,
    "notes": "Warm-up and milestones are the reference framework's 1x schedule. "
    + CANVAS_NOTE
    + DECAY_NOTE,
}
_MSMLP_COCO: Config = {
    **_COCO,
    "weight_decay": 0.05,
    "notes": "Warm-up and milestones of 1x are the reference framework's; stochastic "
    "depth is the architecture's, since the paper leaves it open. " + CANVAS_NOTE,
}
_MSMLP_COCO_3X: Config = {
    **_MSMLP_COCO,
    "epochs": 36,
    "milestones": (27, 33),
    "short_sides": (480, 800),
}
# 512x512 crops of pictures at half to twice 2048x512.
_CROPS: Config = {
    "task": "segmentation",
    "sync_batchnorm": True,
    "image_size": (512, 512),
    "resize_to": (2048, 512),
    "scale_range": (0.5, 2.0),
    "max_class_share": 0.75,
    "photometric": True,
}
# Of the drawn scenes: minutes on two cores. The longest beginning of a name counts.
SCENE_BACKBONES: dict[str, Config] = {
    "convmlp": {"stem_width": 24, "conv_blocks": 1, "widths": (48, 96, 128)}
    | {"depths": (1, 1, 1)},
    "msmlp": {"width": 24, "depths": (1, 1, 2, 1), "layer_scale": 0.1},
    "repmlpnet": {"widths": (24, 48, 96, 128), "depths": (1, 1, 2, 1)}
    | {"share_sets": (1, 4, 8, 16), "downsample": "conv3"},
    "smlpnet": {"width": 24, "depths": (1, 1, 2, 1), "mlp_ratio": 2},
    "swin": {"width": 24, "depths": (1, 2, 2, 1), "heads": (2, 4, 8, 8)}
    | {"window_size": 6},
    # Windows of 3 tile every stage of 96x96.
    "focal": {"width": 24, "depths": (1, 1, 2, 1), "heads": (2, 4, 8, 8)}
    | {"window_size": 3, "focal_windows": (3, 3, 1, 1)},
    # Half of 28 channels are as many as stage zero's five groups need.
    "msmlp_swin": {"width": 28, "depths": (1, 1, 2, 2, 1), "heads": (4, 8, 8)}
    | {"window_size": 6, "layer_scale": 0.1},
    "msmlp_focal": {"width": 28, "depths": (1, 1, 1, 2, 1), "heads": (4, 8, 8)}
    | {"window_size": 3, "focal_windows": (3, 1, 1), "layer_scale": 0.1},
}
# MS-MLP's tables have Swin and Focal transformers by its own recipes.
_PAPER = {"swin": "msmlp", "focal": "msmlp"}
_SMALL_RPN: Config = {
    "fpn_filters": 64,
    "anchor_scale": 6,
    "candidates": 100,
    "training_candidates": 200,
    "proposals": 50,
    "training_proposals": 100,
    "finest_scale": 28,
    "roi_samples": 32,
    "fc_units": 128,
    "mask_convs": 2,
    "mask_filters": 48,
    "max_detections": 20,
}
SCENE_HEADS: dict[str, Config] = {
    "retinanet": {"fpn_filters": 64, "head_convs": 2, "anchor_scale": 3}
    | {"candidates": 200, "max_detections": 20},
    "mask_rcnn": _SMALL_RPN,
    "cascade_mask_rcnn": _SMALL_RPN,
    "semantic_fpn": {"fpn_filters": 64, "filters": 48},
    "upernet": {"filters": 48, "auxiliary_filters": 24},
}
# Steps of these are cheap, or teach less.
SCENE_EPOCHS = {"retinanet": 8, "upernet": 8}
_SCENES: Config = {
    "batch_size": 8,
    "drop_path": 0.0,
    "reproduces": "no paper: minutes on a laptop, for drawn shapes of 96x96",
    "data": SCENES,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_steps": 150,
    "clip_norm": 2.0,
    "image_size": (96, 96),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}
# The word of a recipe's name, its head and the head's name in the papers.
_COCO_HEADS = {
    "retinanet": ("retinanet", "RetinaNet"),
    "mask": ("mask_rcnn", "Mask R-CNN"),
    "cascade": ("cascade_mask_rcnn", "Cascade Mask R-CNN"),
}


def _on_coco(name, tables, settings, **more):
    """Return a recipe on COCO; its name has the backbone, the data and the head."""
    head, title = _COCO_HEADS[name.split("_")[2]]
    return DenseRecipe(
        name=name,
        reproduces=f"{tables}: {title} on COCO, {settings['epochs']} epochs",
        head=head,
        **settings,
        **more,
    )


_RECIPES = (
    _on_coco("convmlp_coco_retinanet", "ConvMLP, Table 5", _CONVMLP_COCO),
    _on_coco("convmlp_coco_mask_rcnn", "ConvMLP, Table 6", _CONVMLP_COCO),
    DenseRecipe(
        name="convmlp_ade20k",
        reproduces="ConvMLP, Table 7: Semantic FPN on ADE20K, 40,000 steps",
        notes="Scales, the share of a class and colours are the reference framework's "
        "defaults. " + DECAY_NOTE,
        data=ADE20K,
        head="semantic_fpn",
        steps=40_000,
        validate_every=4_000,
        learning_rate=2e-4,
        weight_decay=1e-4,
        schedule="poly",
        power=0.9,
        **_CROPS,
    ),
    _on_coco("msmlp_coco_retinanet_1x", "MS-MLP, Tables 6 and 8", _MSMLP_COCO),
    _on_coco("msmlp_coco_mask_rcnn_1x", "MS-MLP, Tables 6 and 8", _MSMLP_COCO),
    _on_coco("msmlp_coco_mask_rcnn_3x", "MS-MLP, Table 11", _MSMLP_COCO_3X),
    _on_coco(
        "msmlp_coco_cascade_3x",
        "MS-MLP, Table 11",
        _MSMLP_COCO_3X,
        head_arguments={"box_head": "4conv1fc"},
        sync_batchnorm=True,
    ),
    DenseRecipe(
        name="msmlp_ade20k",
        reproduces="MS-MLP, Table 7: UperNet on ADE20K, 160,000 steps",
        notes="The share of a class is the reference framework's default, the "
        "warm-up's first rate that of the settings the paper follows. MS mIoU is over "
        "scales 0.5, 0.75, …, 1.75, mirrored too.",
        data=ADE20K,
        head="upernet",
        steps=160_000,
        validate_every=16_000,
        learning_rate=6e-5,
        weight_decay=0.01,
        schedule="linear",
        warmup_steps=1500,
        warmup_ratio=1e-6,
        drop_path=0.2,
        **_CROPS,
    ),
    DenseRecipe(
        name="repmlpnet_cityscapes",
        reproduces="RepMLPNet, Table 5: UperNet on Cityscapes, 80,000 steps",
        notes="With 5x5 downsampling, for 77.12: --set model.downsample=conv5. "
        "Optimizer, rate and decay are the reference framework's defaults; they are "
        "for a batch of 8, and the paper does not state its own: 16, as the other "
        "recipes of crops, may want another rate. " + DECAY_NOTE,
        data=CITYSCAPES,
        head="upernet",
        steps=80_000,
        validate_every=8_000,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=5e-4,
        learning_rate=0.01,
        schedule="poly",
        power=0.9,
        final_rate=1e-4,
        drop_path=0.0,
        test_size=(1024, 2048),
        model={"downsample": "conv3", "block_size": (64, 64)},
        **_CROPS | {"image_size": (512, 1024), "resize_to": (2048, 1024)},
    ),
    DenseRecipe(
        name="scenes_detection",
        task="detection",
        head="mask_rcnn",
        epochs=5,
        # Heads without norms do not bear the rate of those with.
        learning_rate=1e-3,
        mask_size=56,
        max_objects=4,
        **_SCENES,
    ),
    DenseRecipe(
        name="scenes_segmentation",
        task="segmentation",
        head="semantic_fpn",
        epochs=6,
        learning_rate=3e-3,
        **_SCENES,
    ),
)
CATALOGUE = {recipe.name: recipe for recipe in _RECIPES}
IMPLIED = {"detection": "scenes_detection", "segmentation": "scenes_segmentation"}


def dense_recipes(task: str | None = None) -> dict[str, DenseRecipe]:
    """Return the recipes by name, in the catalogue's order.

    Args:
        task: Task, `"detection"` or `"segmentation"`; `None`: of both.
    """
    return {n: r for n, r in CATALOGUE.items() if task in (None, r.task)}


def dense_recipe_for(
    arch: str,
    task: str,
    *,
    name: str | None = None,
    head: str | None = None,
    data: str | None = None,
) -> DenseRecipe:
    """Return the recipe of an architecture, by name or implied.

    Args:
        arch: Architecture of the backbone, such as `"convmlp_s"`.
        task: Task, `"detection"` or `"segmentation"`.
        name: Name of the recipe; `None`: the embedded scenes imply theirs, other data
            the first of the family's paper on them, with this head where one is given.
        head: Head that takes the place of the recipe's; `None`: the recipe's.
        data: Name of the data, as `--data` takes it; `None`: the scenes.

    Raises:
        InputError: If a recipe is unknown or of the other task, or none is implied; the
            message names what there is.
    """
    known = dense_recipes(task)
    if head is not None and head not in HEADS[task]:
        raise InputError(
            f"A head for {task} is {' or '.join(HEADS[task])}. Received: --head {head}"
        )
    kind = (data or SCENES).partition(":")[0]
    if name is None and kind == SCENES:
        name = IMPLIED[task]
    if name is None:
        family = arch.partition("_")[0]
        family = _PAPER.get(family, family)
        fits = [r for r in known.values() if r.name.startswith(f"{family}_{kind}")]
        fits = [r for r in fits if head in (None, r.head)] or fits
        if not fits:
            others = [r.name for r in known.values() if r.data.startswith(kind)]
            raise InputError(
                f"No paper trains {arch} on {kind}: choose --recipe "
                f"{' or '.join(others or known)}. Received: --arch {arch} --data {data}"
            )
        name = fits[0].name
    check_known(name, known, f"recipe of {task}")
    recipe = known[name]
    if head not in (None, recipe.head):
        # Arguments belong to the recipe's own head.
        changes: Config = {"head": head, "head_arguments": {}}
        recipe = dataclasses.replace(recipe, **changes)
    if name not in IMPLIED.values():
        return recipe
    return dataclasses.replace(
        recipe,
        model=_scene_backbone(arch),
        head_arguments=SCENE_HEADS[recipe.head],
        epochs=SCENE_EPOCHS.get(recipe.head, recipe.epochs),
    )


def _scene_backbone(arch):
    names = [n for n in SCENE_BACKBONES if arch == n or arch.startswith(f"{n}_")]
    return SCENE_BACKBONES[max(names, key=len)] if names else {}
