"""The ablations of MS-MLP's paper.

Zheng, He, Chen, Zhou: Mixing and Shifting: Exploiting Global and Local Dependencies in
Vision MLPs, 2022. Those with attention are in `hybrids`.
"""

from kmlp.models.ablations.row import Row

# Distances as the tables have them; the named variants' are those of the published
# weights, -2 to 2.
_DISTANCES = (0, 1, 2, 3, 4)

# Table 9 and Fig. 3: regions and distances, the same in all stages.
_CONFIGURATIONS = {
    "local": ((1, 1, 1, 1, 1), _DISTANCES),
    "global": ((7, 7, 7, 7, 7), _DISTANCES),
    "isolated": ((1, 1, 3, 5, 7), (0, 2, 5, 10, 17)),
    "regional": ((1, 1, 3, 5, 7), _DISTANCES),
}
_TABLE9 = (
    "Regions and distances are the table's in every stage, shifted before they are "
    "mixed, as the published network does. Accuracies are bars of Fig. 3 without "
    "figures."
)
_FIGURE3 = (
    "Read as MS-MLP-T over patches of 2x2 pixels, four times the tokens in every "
    "stage; the paper does not say more. Accuracies are bars without figures."
)


def _configured(table, words, counted, note, suffix="", **arguments):
    regions, shifts = _CONFIGURATIONS[words]
    return Row(
        f"msmlp/{table}/{words}{suffix}",
        "msmlp_t",
        {"regions": (regions,) * 4, "shifts": shifts, **arguments},
        counted=counted,
        note=note,
    )


TABLE9 = tuple(
    _configured("table9", words, counted, _TABLE9)
    for words, counted in (
        ("local", (28_285_768, 4_354_715_136)),
        ("global", (28_921_672, 4_560_637_440)),
        ("isolated", (28_495_432, 4_420_364_160)),
        ("regional", (28_495_432, 4_420_364_160)),
    )
)
FIGURE3 = tuple(
    _configured("figure3", words, counted, _FIGURE3, "_patch2", patch_size=2)
    for words, counted in (
        ("local", (28_282_312, 17_373_204_480)),
        ("global", (28_918_216, 18_196_893_696)),
        ("isolated", (28_491_976, 17_635_800_576)),
        ("regional", (28_491_976, 17_635_800_576)),
    )
)

# Table 12: other numbers of blocks, in four or five stages.
_REGIONS = ((1, 1, 3, 5, 7), (1, 3, 3, 5, 7), (1, 5, 5, 5, 7), (1, 7, 7, 7, 7))
_PROJECTIONS = (
    "The published block makes this {0} M parameters; two more Dense layers per block, "
    "which the paper does not mention, make the table's."
)


def _layout(size, depths, top1, parameters, macs, counted, published, **figures):
    arguments = {"depths": depths, "projections": True}
    note = _PROJECTIONS.format(published)
    if len(depths) == 5:
        arguments["patch_size"] = 2
        arguments["width"] = {"t": 48, "s": 48, "b": 64}[size]
        arguments["regions"] = (_REGIONS[0], *_REGIONS)
        note += (
            " The first of five stages is read as one at half the width over patches "
            "of 2x2 pixels, with the regions of the next."
        )
    if figures:
        note += " So made, the network has fewer multiply-adds than the table."
    return Row(
        f"msmlp/table12/{size}_{'_'.join(map(str, depths))}",
        f"msmlp_{size}",
        arguments,
        top1=top1,
        parameters=parameters,
        macs=macs,
        counted=counted,
        note=note,
        **figures,
    )


TABLE12 = (
    _layout(
        "t",
        (2, 2, 6, 2),
        81.4,
        "24",
        "4.3",
        (24_193_160, 3_715_021_312),
        19.9,
        differs=("macs",),
    ),
    _layout("t", (2, 2, 2, 6, 2), 81.3, "24", "4.4", (24_257_752, 4_381_358_592), 19.9),
    _layout(
        "s",
        (2, 2, 18, 2),
        82.8,
        "42",
        "7.8",
        (42_163_784, 7_228_231_936),
        34.3,
        differs=("macs",),
    ),
    _layout(
        "s", (2, 2, 2, 18, 2), 83.0, "42", "7.8", (42_228_376, 7_894_569_216), 34.4
    ),
    _layout(
        "b",
        (2, 2, 18, 2),
        83.3,
        "74",
        "13.8",
        (74_354_184, 12_798_585_280),
        60.4,
        differs=("macs",),
    ),
    _layout(
        "b", (2, 2, 2, 18, 2), 83.2, "74", "13.9", (74_469_192, 13_972_302_272), 60.5
    ),
)

# Table 13: regions, and convolutions over one channel or over all of a group.
_TABLE13 = (
    "Regions in every stage, distances 0 to 4 as in Table 9, read from the text; "
    "the block is counted as published. The paper's figures do not follow from it: "
    "MS-MLP-T itself has 4.438 G where the paper has 4.9 G."
)


def _regions(regions, mixing, top1, macs, counted, differs=("macs",)):
    return Row(
        f"msmlp/table13/{'_'.join(map(str, regions))}_{mixing}",
        "msmlp_t",
        {"regions": (regions,) * 4, "shifts": _DISTANCES, "mixing": mixing},
        top1=top1,
        macs=macs,
        counted=counted,
        note=_TABLE13,
        differs=differs,
    )


TABLE13 = (
    _regions((1, 1, 3, 5, 7), "depthwise", 82.1, "4.9", (28_495_432, 4_420_364_160)),
    _regions((1, 1, 3, 5, 7), "full", 82.0, "7.7", (49_995_400, 7_749_083_904), ()),
    _regions((1, 3, 5, 7, 9), "depthwise", 81.8, "5.6", (28_706_248, 4_487_509_056)),
    _regions((1, 3, 5, 7, 9), "full", 82.0, "9.1", (70_562_440, 11_011_176_192)),
    _regions((1, 7, 5, 3, 1), "depthwise", 81.1, "4.9", (28_498_888, 4_424_851_776)),
    _regions((1, 7, 5, 3, 1), "full", 81.3, "7.7", (50_410_120, 7_964_489_472)),
    _regions((1, 5, 3, 3, 1), "depthwise", 81.2, "4.6", (28_392_328, 4_389_783_456)),
    _regions((1, 5, 3, 3, 1), "full", 81.4, "6.8", (39_988_360, 6_261_641_472)),
)

ROWS = (*TABLE9, *FIGURE3, *TABLE12, *TABLE13)
