"""The ablations of ResMLP's paper.

Touvron et al.: ResMLP: Feedforward networks for image classification with
data-efficient training, 2021.
"""

from kmlp.models.ablations.row import Row

# Sect. 3.5: one head, which learns the teacher's labels alone.
_DISTILLED = {"distillation": "hard", "distillation_alpha": 1.0}
_CLASS_MLP = (
    "Two class layers as CaiT's, with one linear map over token and patches in place "
    "of the attention, norms and scales as in the blocks."
)


def _table4(name, architecture, top1, counted, arguments=None, **more):
    return Row(
        f"resmlp/table4/{name}",
        architecture,
        arguments or {},
        top1=top1,
        counted=counted,
        **more,
    )


TABLE4 = (
    _table4("s12", "resmlp_s12", 76.6, (15_350_872, 3_009_739_776)),
    _table4("s24", "resmlp_s24", 79.4, (30_020_680, 5_961_292_800)),
    _table4("s36", "resmlp_s36", 79.7, (44_690_488, 8_912_845_824)),
    _table4(
        "s12_distilled",
        "resmlp_s12",
        77.8,
        (15_350_872, 3_009_739_776),
        recipe=_DISTILLED,
        note="Distilled from RegNetY-16GF; the network is S12.",
    ),
    _table4(
        "s12_class_mlp",
        "resmlp_s12",
        77.5,
        (17_719_396, 3_012_250_368),
        {"pooling": "class_mlp"},
        note=_CLASS_MLP,
    ),
    _table4(
        "s24_class_mlp",
        "resmlp_s24",
        79.9,
        (32_389_204, 5_963_803_392),
        {"pooling": "class_mlp"},
        note=_CLASS_MLP,
    ),
    _table4(
        "s12_layer_norm",
        "resmlp_s12",
        77.7,
        (15_350_872, 3_009_739_776),
        {"norm": "layer"},
    ),
    _table4(
        "s12_conv3",
        "resmlp_s12",
        78.6,
        (30_817_384, 5_954_067_456),
        {"mixing": "conv3"},
        note="The paper does not say whether the convolution is depthwise. As printed, "
        "over patches of dimension 384, it is not; resmlp/section3/"
        "s12_depthwise_conv3 is the other reading.",
    ),
)

SECTION3 = (
    Row(
        "resmlp/section3/s12_depthwise_conv3",
        "resmlp_s12",
        {"mixing": "depthwise_conv3"},
        counted=(14_933_608, 2_840_847_360),
        note="The other reading of Table 4's 3x3 convolution, at 78.6 there.",
    ),
)

# Appendix A: CaiT-S24 with a mixing MLP and class-MLP in place of its attentions.
_BASELINE = {
    "norm": "layer",
    "mixing": "mlp",
    "pooling": "class_mlp",
    "position_encoding": "learned",
}
_COUNTED = (38_937_172, 8_442_096_384)
_PATCHES = (
    "The paper has 16x16 patches at 224 pixels; CaiT-S24 has patches of 16 pixels, "
    "14x14 of them, and so has this."
)


def _appendix(name, top1, counted=_COUNTED, changes=None, note=None, **more):
    return Row(
        f"resmlp/appendix_a/{name}",
        "resmlp_s24",
        {**_BASELINE, **(changes or {})},
        top1=top1,
        counted=counted,
        note=_PATCHES if note is None else f"{note} {_PATCHES}",
        **more,
    )


def _expansion(words, ratio, top1, counted):
    return _appendix(
        f"expansion_{words}",
        top1,
        counted,
        {"pooling": "average", "mixing_ratio": ratio},
        "By average pooling, as the paper has it for this table.",
    )


_RELATIVE = "The paper prints {}, relative to the baseline's 79.2."

APPENDIX_A = (
    _appendix("distilled", 81.5, recipe=_DISTILLED, note="The baseline, distilled."),
    _appendix("activation_gelu", 79.2, note="The baseline."),
    _appendix("activation_silu", 78.7, changes={"activation": "silu"}),
    _appendix("activation_hard_swish", 78.8, changes={"activation": "hard_swish"}),
    _appendix("activation_relu", 79.1, changes={"activation": "relu"}),
    _expansion("0_25", 0.25, 78.6, (29_636_128, 5_784_271_872)),
    _expansion("0_5", 0.5, 79.2, (30_098_296, 5_961_292_800)),
    _expansion("1", 1, 79.2, (31_022_632, 6_315_334_656)),
    _expansion("2", 2, 79.3, (32_871_304, 7_023_418_368)),
    _expansion("3", 3, 78.8, (34_719_976, 7_731_502_080)),
    _expansion("4", 4, 78.8, (36_568_648, 8_439_585_792)),
    _appendix(
        "linear",
        79.5,
        (30_095_944, 5_961_292_800),
        {"pooling": "average", "mixing": "linear"},
        "In a setting comparable to the table of expansions.",
    ),
    _appendix("norm_layer", 79.2, note="The baseline."),
    _appendix(
        "norm_batch", 80.0, changes={"norm": "batch"}, note=_RELATIVE.format("+0.8")
    ),
    _appendix(
        "norm_l2",
        79.6,
        changes={"norm": "l2"},
        note=f"{_RELATIVE.format('+0.4')} Each token is divided by its norm over the "
        "channels; scale and shift are learned.",
    ),
    _appendix(
        "norm_affine", 79.6, changes={"norm": "affine"}, note=_RELATIVE.format("+0.4")
    ),
    _appendix("position_learned", 79.2, note="The baseline, with CaiT's positions."),
    _appendix(
        "position_none",
        None,
        (38_861_908, 8_442_096_384),
        {"position_encoding": None},
        "The paper has no figure: the results do not change.",
    ),
)

ROWS = (*TABLE4, *SECTION3, *APPENDIX_A)
