"""The ablations of MS-MLP's paper that have attention in later stages.

Zheng, He, Chen, Zhou: Mixing and Shifting: Exploiting Global and Local Dependencies in
Vision MLPs, 2022. Those of mix-shift blocks alone are in `msmlp`.
"""

from kmlp.models.ablations.row import Row

_UP = "The table rounds the parameters up. "
_ZERO = (
    "The table repeats the plain transformer's multiply-adds; stage zero costs more "
    "than mix-shift blocks save in stage one."
)
_FOCAL = (
    "What the table prints is met by the plain transformer's figure with stage zero's "
    "two channel MLPs and four times its downsampling added: 0.69 G, of B 1.23 G."
)


def _row(architecture, top1, parameters, macs, counted, differs=(), note=""):
    return Row(
        f"msmlp/table5/{architecture}",
        architecture,
        top1=top1,
        parameters=parameters,
        macs=macs,
        counted=counted,
        differs=differs,
        note=note,
    )


_BOTH, _PARAMETERS, _MACS = ("parameters", "macs"), ("parameters",), ("macs",)

TABLE5 = (
    _row(
        *("swin_t", 81.3, "29", "4.5", (28_288_354, 4_490_566_656)),
        *(_PARAMETERS, _UP),
    ),
    _row("swin_s", 83.0, "50", "8.7", (49_606_258, 8_740_875_264)),
    _row("swin_b", 83.3, "88", "15.4", (87_768_224, 15_430_946_816)),
    _row(
        *("msmlp_swin_t", 81.9, "29", "4.5", (28_274_428, 4_769_946_624)),
        *(_BOTH, _UP + _ZERO),
    ),
    _row(
        *("msmlp_swin_s", 83.5, "50", "8.7", (49_592_332, 9_020_255_232)),
        *(_MACS, _ZERO),
    ),
    _row(
        *("msmlp_swin_b", 83.8, "88", "15.4", (87_742_104, 15_935_918_080)),
        *(_MACS, _ZERO),
    ),
    _row("focal_t", 82.2, "29", "4.9", (28_880_380, 4_953_223_680)),
    _row(
        *("focal_s", 83.5, "52", "9.4", (51_141_940, 9_480_362_496)),
        *(_PARAMETERS, _UP),
    ),
    _row("focal_b", 83.8, "90", "16.4", (89_815_400, 16_435_804_160)),
    _row(
        *("msmlp_focal_t", 82.8, "29", "5.6", (28_826_532, 5_010_498_048)),
        *(_MACS, _FOCAL),
    ),
    _row(
        *("msmlp_focal_s", 83.9, "52", "10.1", (51_088_092, 9_537_636_864)),
        *(_BOTH, _UP + _FOCAL),
    ),
    _row(
        *("msmlp_focal_b", 84.0, "90", "17.6", (89_736_084, 16_643_061_760)),
        *(_MACS, _FOCAL),
    ),
)

TABLE10 = (
    Row(
        "msmlp/table10/swin_t_patch2",
        "swin_t",
        {"patch_size": 2},
        top1=81.4,
        counted=(28_284_898, 17_916_610_560),
        note="Read as Swin-T over patches of 2x2 pixels, four times the tokens in "
        "every stage; the paper does not say more.",
    ),
    Row(
        "msmlp/table10/swin_t_patch4",
        "swin_t",
        top1=81.3,
        counted=(28_288_354, 4_490_566_656),
    ),
    Row(
        "msmlp/table10/msmlp_swin_t_patch2",
        "msmlp_swin_t",
        top1=81.9,
        counted=(28_274_428, 4_769_946_624),
        note="Stage zero is on patches of 2x2 pixels.",
    ),
    Row(
        "msmlp/table10/msmlp_swin_t_patch4",
        "msmlp_swin_t",
        {"stage_zero": False},
        top1=81.6,
        counted=(28_219_052, 4_219_214_848),
        note="Without stage zero, whose patches are smaller.",
    ),
)

ROWS = TABLE5 + TABLE10
