"""The ablations of sMLPNet's paper.

Tang, Zhao, Wang, Luo, Xie, Zeng: Sparse MLP for Image Recognition: Is Self-Attention
Really Necessary?, AAAI 2022.
"""

from kmlp.models.ablations.row import Row

_TINY = "smlpnet_t_a2"  # the paper's T*
# The whole of it, which three tables compare with.
_COUNTED = (19_175_584, 3_945_790_720)
_WHOLE = {"top1": 81.3, "parameters": "19.2", "macs": "4.0", "counted": _COUNTED}

# Table 1: local and global modelling.
_MODULE = "What is left out goes with the BN and GELU before it."

TABLE1 = (
    Row(
        "smlpnet/table1/local_global",
        _TINY,
        **_WHOLE,
    ),
    Row(
        "smlpnet/table1/global_only",
        _TINY,
        {"local_mixing": False},
        top1=80.6,
        parameters="19.1",
        macs="3.9",
        counted=(19_096_384, 3_923_776_000),
        note=_MODULE,
    ),
    Row(
        "smlpnet/table1/local_only",
        _TINY,
        {"width": 112, "global_mixing": False},
        top1=80.7,
        parameters="22.5",
        macs="4.4",
        counted=(22_540_776, 4_375_753_984),
        note=_MODULE,
    ),
)

# Table 2: the stages that have a sparse MLP.
_REPLACED = (
    "The paper says that the sparse MLP is removed; its figures are those of another "
    "depthwise convolution in its place."
)


def _from_stage(first, top1, parameters, macs, counted, note=_REPLACED):
    marks = [f"s{stage}" for stage in range(first, 5)]
    mixing = ("depthwise",) * (first - 1) + (True,) * len(marks)
    return Row(
        f"smlpnet/table2/{'_'.join(marks) or 'none'}",
        "smlpnet_b",
        {"global_mixing": mixing},
        top1=top1,
        parameters=parameters,
        macs=macs,
        counted=counted,
        note=note,
    )


TABLE2 = (
    _from_stage(1, 83.4, "65.9", "14.0", (65_880_408, 13_986_515_200), note=""),
    _from_stage(2, 83.2, "65.8", "13.7", (65_794_392, 13_678_133_504)),
    _from_stage(3, 83.0, "64.3", "12.4", (64_293_032, 12_415_454_464)),
    _from_stage(4, 82.2, "49.9", "9.5", (49_929_032, 9_543_079_168)),
    _from_stage(5, 82.0, "45.1", "9.3", (45_128_040, 9_306_612_224)),
)

# Table 3: fusion of the sparse MLP's paths.
TABLE3 = (
    Row(
        "smlpnet/table3/concat",
        "smlpnet_s",
        top1=83.1,
        parameters="48.6",
        macs="10.3",
        counted=(48_558_136, 10_312_161_792),
    ),
    Row(
        "smlpnet/table3/sum",
        "smlpnet_s",
        {"fusion": "sum"},
        top1=81.5,
        parameters="33.2",
        macs="7.0",
        counted=(33_241_144, 7_017_404_928),
    ),
    Row(
        "smlpnet/table3/weighted_sum",
        "smlpnet_s",
        {"fusion": "weighted_sum"},
        top1=81.8,
        parameters="33.3",
        macs="7.0",
        counted=(33_279_736, 7_017_404_928),
    ),
    Row(
        "smlpnet/table3/smlpnet_t",
        "smlpnet_t",
        top1=81.9,
        parameters="24.1",
        macs="5.0",
        counted=(24_123_584, 4_989_451_520),
    ),
)

# Table 4: branches of the sparse MLP.
_SEQUENTIAL = (
    "The paper leaves open how the one path of sequential axes is fused: here by a "
    "Dense, with the identity or alone."
)


def _branches(axes, identity, top1, counted):
    return Row(
        f"smlpnet/table4/{axes}_{'identity' if identity else 'no_identity'}",
        _TINY,
        {"axes": axes, "identity": identity},
        top1=top1,
        counted=counted,
        note=_SEQUENTIAL if axes == "sequential" else "",
    )


TABLE4 = (
    _branches("parallel", True, 81.3, _COUNTED),
    _branches("sequential", True, 81.1, (16_705_184, 3_423_960_320)),
    _branches("parallel", False, 80.9, (16_705_184, 3_423_960_320)),
    _branches("sequential", False, 80.6, (14_234_784, 2_902_129_920)),
)

# Table 5: one stage or several, with MLPs over all positions.
_MLP = (
    "An MLP over positions is an FC over all of them, GELU and another FC, without "
    "hidden expansion: so the paper's figures come out."
)

TABLE5 = (
    Row(
        "smlpnet/table5/multi_stage_smlp",
        _TINY,
        **_WHOLE,
    ),
    Row(
        "smlpnet/table5/multi_stage_mlp",
        _TINY,
        {"global_mixing": ("depthwise", "positions", "positions", "positions")},
        top1=77.8,
        parameters="22.7",
        macs="4.2",
        counted=(22_671_936, 4_170_830_080),
        note=_MLP,
    ),
    Row(
        "smlpnet/table5/single_stage_mlp",
        _TINY,
        {"width": 512, "depths": (26,), "patch_size": 16, "global_mixing": "positions"},
        top1=76.8,
        parameters="30.4",
        macs="6.5",
        counted=(30_417_656, 6_467_395_584),
        note=f"{_MLP} Width and depth, which the paper does not have, are read off "
        "its figures, too.",
    ),
)

ROWS = (*TABLE1, *TABLE2, *TABLE3, *TABLE4, *TABLE5)
