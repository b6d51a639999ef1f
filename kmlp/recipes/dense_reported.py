"""What the papers report of dense prediction with their own backbones.

Rows of tables as they are printed: parameters in millions, FLOPs in 10⁹, figures in
percent. `None`: the table does not say.
"""

import dataclasses

_BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_MASKS = (*_BOXES[:3], "mask AP", "mask AP50", "mask AP75")
_SIZES = ("AP", "APs", "APm", "APl")
_MIOU = ("mIoU", "MS mIoU")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reported:
    """A row of a paper's table.

    Attributes:
        recipe: name of the `DenseRecipe` that trains it.
        table: paper and number.
        backbone: as the paper calls it.
        arch: as `kmlp.create_model` calls it.
        model: arguments of the backbone besides the recipe's.
        parameters: millions, of backbone and head; `None`: not stated.
        flops: 10⁹ multiplications and additions, counted as one; `None`: not stated.
        figures: `{name: percent}`.
    """

    recipe: str
    table: str
    backbone: str
    arch: str
    model: dict = dataclasses.field(default_factory=dict)
    parameters: float | None = None
    flops: float | None = None
    figures: dict


def _rows(recipe, table, names, rows):
    """Rows of `(backbone, arch, parameters, flops, *figures)`."""
    return [
        Reported(
            recipe=recipe,
            table=table,
            backbone=backbone,
            arch=arch,
            parameters=parameters,
            flops=flops,
            figures=dict(zip(names, figures, strict=True)),
        )
        for backbone, arch, parameters, flops, *figures in rows
    ]


# (backbone, arch), parameters and FLOPs with RetinaNet, its AP, S, M, L; the same with
# Mask R-CNN, its boxes' AP, AP50, AP75 and those of its masks.
_ONE_SCHEDULE = {
    "MS-MLP, Table 6": [
        (
            ("MS-MLP-T", "msmlp_t"),
            (39.6, 265, 42.7, 26.0, 47.3, 59.7),
            (49.8, 269, 44.4, 67.8, 47.8, 40.4, 61.3, 44.2),
        ),
        (
            ("MS-MLP-S", "msmlp_s"),
            (61.2, 360, 45.0, 28.2, 48.9, 60.4),
            (70.9, 372, 47.1, 71.1, 51.6, 41.9, 64.1, 45.1),
        ),
        (
            ("MS-MLP-B", "msmlp_b"),
            (97.3, 544, 45.7, 27.8, 49.2, 59.7),
            (107.5, 557, 46.4, 67.2, 50.7, 42.4, 63.6, 46.4),
        ),
    ],
    "MS-MLP, Table 8": [
        (
            ("MS-MLP+Swin-T", "msmlp_swin_t"),
            (38.5, 262, 42.0, 24.5, 45.4, 57.4),
            (49.8, 269, 42.7, 64.8, 45.9, 39.5, 59.8, 42.3),
        ),
        (
            ("MS-MLP+Focal-Attention-T", "msmlp_focal_t"),
            (39.4, 284, 44.3, 27.0, 47.3, 58.9),
            (44.8, 299, 44.6, 65.7, 48.7, 40.6, 62.6, 44.7),
        ),
        (
            ("MS-MLP+Swin-S", "msmlp_swin_s"),
            (59.9, 344, 45.2, 27.9, 48.4, 59.5),
            (69.1, 379, 45.3, 67.2, 49.6, 41.0, 64.1, 44.1),
        ),
        (
            ("MS-MLP+Focal-Attention-S", "msmlp_focal_s"),
            (62.0, 354, 45.8, 27.8, 51.0, 60.5),
            (72.7, 446, 47.5, 66.5, 52.3, 43.0, 67.3, 46.4),
        ),
        (
            ("MS-MLP+Swin-B", "msmlp_swin_b"),
            (98.7, 502, 45.3, 28.0, 49.4, 59.5),
            (108.6, 561, 47.2, 69.5, 51.3, 42.8, 66.0, 46.3),
        ),
        (
            ("MS-MLP+Focal-Attention-B", "msmlp_focal_b"),
            (104.2, 609, 46.6, 28.8, 50.4, 62.2),
            (116.9, 647, 47.9, 70.6, 52.4, 43.4, 67.8, 47.8),
        ),
    ],
}

_CITYSCAPES = [
    Reported(
        recipe="repmlpnet_cityscapes",
        table="RepMLPNet, Table 5",
        backbone=backbone,
        arch="repmlpnet_d256",
        model=model,
        flops=flops,
        figures={"mIoU": miou},
    )
    for backbone, model, flops, miou in (
        ("RepMLPNet-D256", {}, 1960.01, 76.27),
        ("RepMLPNet-D256 (conv5)", {"downsample": "conv5"}, 1960.16, 77.12),
    )
]

REPORTED = (
    *_rows(
        "convmlp_coco_retinanet",
        "ConvMLP, Table 5",
        _BOXES,
        [
            ("ConvMLP-S", "convmlp_s", 18.7, None, 37.2, 56.4, 39.8, 20.1, 40.7, 50.4),
            ("ConvMLP-M", "convmlp_m", 27.1, None, 39.4, 58.7, 42.0, 21.5, 43.2, 52.5),
            ("ConvMLP-L", "convmlp_l", 52.9, None, 40.2, 59.3, 43.3, 23.5, 43.8, 53.3),
        ],
    ),
    *_rows(
        "convmlp_coco_mask_rcnn",
        "ConvMLP, Table 6",
        _MASKS,
        [
            ("ConvMLP-S", "convmlp_s", 28.7, None, 38.4, 59.8, 41.8, 35.7, 56.7, 38.2),
            ("ConvMLP-M", "convmlp_m", 37.1, None, 40.6, 61.7, 44.5, 37.2, 58.8, 39.8),
            ("ConvMLP-L", "convmlp_l", 62.2, None, 41.7, 62.8, 45.5, 38.2, 59.9, 41.1),
        ],
    ),
    *_rows(
        "convmlp_ade20k",
        "ConvMLP, Table 7",
        _MIOU[:1],
        [
            ("ConvMLP-S", "convmlp_s", 12.8, None, 35.8),
            ("ConvMLP-M", "convmlp_m", 21.1, None, 38.6),
            ("ConvMLP-L", "convmlp_l", 46.3, None, 40.0),
        ],
    ),
    *(
        row
        for recipe, names, place in (
            ("msmlp_coco_retinanet_1x", _SIZES, 1),
            ("msmlp_coco_mask_rcnn_1x", _MASKS, 2),
        )
        for table, rows in _ONE_SCHEDULE.items()
        for row in _rows(recipe, table, names, [(*r[0], *r[place]) for r in rows])
    ),
    *_rows(
        "msmlp_coco_mask_rcnn_3x",
        "MS-MLP, Table 11",
        _MASKS,
        [
            ("MS-MLP-T", "msmlp_t", None, 262, 46.2, 67.8, 50.8, 41.7, 65.2, 45.0),
            ("MS-MLP-S", "msmlp_s", None, 424, 48.6, 70.8, 53.4, 43.7, 67.7, 47.2),
            ("MS-MLP-B", "msmlp_b", None, 561, 49.0, 70.0, 52.6, 43.7, 65.4, 46.7),
        ],
    ),
    *_rows(
        "msmlp_coco_cascade_3x",
        "MS-MLP, Table 11",
        _MASKS,
        [
            ("MS-MLP-T", "msmlp_t", None, 744, 50.4, 69.2, 54.6, 43.7, 66.5, 47.6),
            ("MS-MLP-S", "msmlp_s", None, 841, 51.9, 70.8, 56.6, 43.7, 66.5, 47.3),
            ("MS-MLP-B", "msmlp_b", None, 986, 52.6, 71.4, 57.2, 45.4, 68.9, 49.3),
        ],
    ),
    *_rows(
        "msmlp_ade20k",
        "MS-MLP, Table 7",
        _MIOU,
        [
            ("MS-MLP-T", "msmlp_t", 61, 939, 46.0, 46.8),
            ("MS-MLP-S", "msmlp_s", 82, 1028, 48.7, 49.6),
            ("MS-MLP-B", "msmlp_b", 122, 1172, 49.1, 49.9),
        ],
    ),
    *_CITYSCAPES,
)

# Millions of parameters and 10⁹ multiply-adds of the same networks as they are here:
# what `dense_counts.count` gives.
COUNTS = {
    ("convmlp_coco_retinanet", "ConvMLP-S"): (18.74, 200.12),
    ("convmlp_coco_retinanet", "ConvMLP-M"): (27.13, 231.62),
    ("convmlp_coco_retinanet", "ConvMLP-L"): (52.90, 353.47),
    ("convmlp_coco_mask_rcnn", "ConvMLP-S"): (28.66, 218.68),
    ("convmlp_coco_mask_rcnn", "ConvMLP-M"): (37.05, 250.18),
    ("convmlp_coco_mask_rcnn", "ConvMLP-L"): (62.23, 372.40),
    ("convmlp_ade20k", "ConvMLP-S"): (12.76, 135.55),
    ("convmlp_ade20k", "ConvMLP-M"): (21.15, 167.81),
    ("convmlp_ade20k", "ConvMLP-L"): (46.33, 292.96),
    ("msmlp_coco_retinanet_1x", "MS-MLP-T"): (38.83, 242.62),
    ("msmlp_coco_retinanet_1x", "MS-MLP-S"): (60.47, 328.93),
    ("msmlp_coco_retinanet_1x", "MS-MLP-B"): (99.32, 465.60),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP-T"): (48.16, 261.54),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP-S"): (69.81, 347.85),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP-B"): (108.07, 484.90),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Swin-T"): (38.44, 252.31),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Swin-S"): (59.76, 343.10),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Swin-B"): (98.36, 490.02),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Swin-T"): (47.78, 271.23),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Swin-S"): (69.10, 362.03),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Swin-B"): (107.12, 509.32),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Focal-Attention-T"): (39.31, None),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Focal-Attention-S"): (61.57, None),
    ("msmlp_coco_retinanet_1x", "MS-MLP+Focal-Attention-B"): (100.77, None),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Focal-Attention-T"): (48.64, None),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Focal-Attention-S"): (70.90, None),
    ("msmlp_coco_mask_rcnn_1x", "MS-MLP+Focal-Attention-B"): (109.52, None),
    ("msmlp_ade20k", "MS-MLP-T"): (60.31, 938.11),
    ("msmlp_ade20k", "MS-MLP-S"): (81.96, 1026.50),
    ("msmlp_ade20k", "MS-MLP-B"): (122.21, 1168.92),
    ("msmlp_coco_cascade_3x", "MS-MLP-T"): (86.00, 739.79),
    ("msmlp_coco_cascade_3x", "MS-MLP-S"): (107.65, 826.11),
    ("msmlp_coco_cascade_3x", "MS-MLP-B"): (145.91, 963.15),
    ("repmlpnet_cityscapes", "RepMLPNet-D256"): (116.71, 1955.26),
    ("repmlpnet_cityscapes", "RepMLPNet-D256 (conv5)"): (116.73, 1955.40),
}
# The same networks, trained longer.
COUNTS |= {
    ("msmlp_coco_mask_rcnn_3x", name): counts
    for (recipe, name), counts in COUNTS.items()
    if recipe == "msmlp_coco_mask_rcnn_1x"
}


def ours(row):
    """Millions of parameters and 10⁹ multiply-adds of a row's network here.

    The latter `None` where its windows do not tile the size at which the paper counts.
    """
    return COUNTS[row.recipe, row.backbone]
