"""What the papers print of the architectures, read off once more and counted."""

import decimal

import counting
import pytest
from counting import expected

import kmlp
from kmlp.analysis.complexity import shapes_only
from kmlp.models import papers
from kmlp.models.papers import ABLATIONS, REPORTED, reported
from kmlp.models.registry import variant

# Rows as the papers' tables have them: source, then the network's name here and
# parameters, FLOPs and top-1 in the paper's units, with their signs left out.
PRINTED = """
RepMLPNet, Table 2
repmlpnet_t224 38.3 2.79 76.4
resmlp_s12 15.4 3.0 70.4
resmlp_s12 15.4 3.0 67.7
resmlp_s12 15.4 3.0 76.6
repmlpnet_t256 58.7 4.24 77.5
resmlp_s24 30.0 6.0 79.4
repmlpnet_b224 68.2 6.65 80.1
repmlpnet_d256 86.9 8.61 80.8
repmlpnet_b256 96.5 9.61 81.0
repmlpnet_l256 117.7 11.5 81.8
mlp_mixer_b16 59 12.6 76.4
mlp_mixer_b16 59.8 12.6 76.7
resmlp_b24 115.7 23.0 81.0
RepMLPNet, Table 4
repmlpnet_cifar 8.3 0.468 67.43
resmlp_12_cifar 7.1 1.812 55.58
ResMLP, Table 1
resmlp_s12 15 3.0 76.6
resmlp_s24 30 6.0 79.4
resmlp_s36 45 8.9 79.7
ConvMLP, Table 2
convmlp_s 9.02 2.40 76.81
ConvMLP, Table 3
resmlp_s12 15.3 3.0 76.6
convmlp_s 9.0 2.4 76.8
resmlp_s24 30.0 6.0 79.4
convmlp_m 17.4 3.9 79.0
swin_b 87.8 15.4 83.5
mlp_mixer_b16 59.9 12.6 76.4
resmlp_b24 115.7 23.0 81.0
convmlp_l 42.7 9.9 80.2
MS-MLP, Table 3
resmlp_s12 15 3.0 76.6
msmlp_t 28 4.9 82.1
mlp_mixer_b16 59 12.7 76.4
msmlp_s 50 9.0 83.4
resmlp_b24 116 23.0 81.0
msmlp_b 88 16.1 83.8
MS-MLP, Table 5
swin_t 29 4.5 81.3
swin_s 50 8.7 83.0
swin_b 88 15.4 83.3
msmlp_swin_t 29 4.5 81.9
msmlp_swin_s 50 8.7 83.5
msmlp_swin_b 88 15.4 83.8
focal_t 29 4.9 82.2
focal_s 52 9.4 83.5
focal_b 90 16.4 83.8
msmlp_focal_t 29 5.6 82.8
msmlp_focal_s 52 10.1 83.9
msmlp_focal_b 90 17.6 84.0
sMLPNet, Table 6
swin_t 29 4.5 81.3
swin_s 50 8.7 83.0
swin_b 88 15.4 83.5
mlp_mixer_b16 59 12.7 76.4
resmlp_s12 15 3.0 76.6
resmlp_s24 30 6.0 79.4
resmlp_s36 45 8.9 79.7
smlpnet_t_a2 19.2 4.0 81.3
smlpnet_t 24.1 5.0 81.9
smlpnet_s 48.6 10.3 83.1
smlpnet_b 65.9 14.0 83.4
"""
OWN = {
    "convmlp": "ConvMLP",
    "msmlp": "MS-MLP",
    "repmlpnet": "RepMLPNet",
    "resmlp_s": "ResMLP",
    "smlpnet": "sMLPNet",
}
MACS_TOLERANCE = 0.015
# By timm's `mixer_b16_224`, which its own test is held against.
MIXER = (59_880_472, 12_601_767_936)


def printed():
    source = None
    for line in PRINTED.strip().splitlines():
        if ", " in line:
            source = line
        else:
            name, *figures = line.split()
            yield source, name, *figures


def counted(name):
    """By hand arithmetic, or by the ablations' own tests."""
    if name == "mlp_mixer_b16":
        return MIXER
    row = ABLATIONS.get(f"msmlp/table5/{name}")
    return row.counted if row else expected(name)


def half_unit(figure):
    return 0.5 * 10.0 ** decimal.Decimal(figure).as_tuple().exponent


def cut(value, figure):
    """A count in the digits of a printed figure, the others cut off."""
    unit = decimal.Decimal(1).scaleb(decimal.Decimal(figure).as_tuple().exponent)
    return str(decimal.Decimal(value).quantize(unit, decimal.ROUND_DOWN))


def test_figures_are_the_papers():
    found = [
        (row.source, row.architecture, row.parameters, row.macs, f"{row.top1}")
        for rows in REPORTED.values()
        for row in rows
    ]
    assert sorted(found) == sorted(printed())


# Of RepMLPNet's Table 2, and of MS-MLP's Sect. 4.1.
TRAINED = {
    "repmlpnet_d256": ["100 epochs"],
    "resmlp_s24": ["", "", "400 epochs as DeiT", ""],
    "mlp_mixer_b16": ["", "100 epochs, RepMLPNet's run", "300 epochs", "", ""],
    "msmlp_t": ["300 epochs"],
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_said_where_the_paper_says_it(name):
    assert [row.training for row in REPORTED[name]] == TRAINED[name]


def test_every_architecture_is_reported_by_its_own_paper_first():
    assert sorted([*REPORTED, "smlpnet_xs"]) == kmlp.list_models()
    assert reported("smlpnet_xs") is None
    for name in REPORTED:
        first = reported(name)
        assert first.architecture == name
        for prefix, paper in OWN.items():
            if name.startswith(prefix):
                assert first.source.startswith(f"{paper}, "), name
        data = "CIFAR-100" if name.endswith("_cifar") else "ImageNet-1k"
        assert {row.data for row in REPORTED[name]} == {data}
        size = 32 if data == "CIFAR-100" else 256 if name.endswith("256") else 224
        assert {row.image_size for row in REPORTED[name]} == {size}
        assert variant(name)[1].get("input_shape", (224,))[0] == size
    assert reported("nothing") is None


@pytest.mark.parametrize("name", sorted(REPORTED))
def test_counts_agree_or_the_row_says_which_do_not(name):
    parameters, macs = counted(name)
    for row in REPORTED[name]:
        agrees = {
            "parameters": abs(parameters / 1e6 - float(row.parameters))
            <= 1.001 * half_unit(row.parameters),
            "macs": abs(macs / 1e9 - float(row.macs))
            <= max(MACS_TOLERANCE * float(row.macs), half_unit(row.macs)),
        }
        wrong = tuple(figure for figure, good in agrees.items() if not good)
        assert wrong == row.differs, row
        assert row.notes or not row.differs, row


def merged_repmlpnet(*, input_shape, widths, depths, share_sets):
    """FC kernels with biases, scales and shifts before the first; no branches."""
    parts = []
    for stage, (width, depth) in enumerate(zip(widths, depths)):
        tokens = (input_shape[0] // 4 // 2**stage) ** 2
        block = [
            counting.norm(width),
            counting.positions_fc(tokens, width, share_sets[stage]),
            counting.linear(width, width // 4, 1),
            counting.linear(width // 4, width, 1),
            counting.mlp(width, 4, tokens),
        ]
        parts.append(counting.linear(width * 2 if stage else 48, width, tokens))
        parts.append(counting.times(depth, counting.total(*block)))
    return counting.total(*parts, counting.linear(widths[-1], 1000, 1))


TINY = {
    "input_shape": (224, 224, 3),
    "widths": (64, 128, 256, 512),
    "depths": (2, 2, 6, 2),
    "share_sets": (1, 4, 16, 128),
}


@pytest.mark.parametrize(
    "name", [name for name in kmlp.list_models("repmlpnet_*") if "cifar" not in name]
)
def test_repmlpnets_are_counted_merged_and_cut_off(name):
    given = {key: variant(name)[1].get(key, TINY[key]) for key in TINY}
    parameters, macs = merged_repmlpnet(**given)
    row = reported(name)
    assert cut(parameters / 1e6, row.parameters) == row.parameters
    assert cut(macs / 1e9, row.macs) == row.macs
    if row.differs:
        size = f"{parameters / 1e6:.2f}"
        assert size in row.notes[0], size


def test_a_merged_repmlpnet_has_these_counts():
    given = {**TINY, "depths": (1, 1, 1, 1)}
    with shapes_only():
        model = kmlp.create_model("repmlpnet_t224", depths=given["depths"])
        profile = kmlp.profile(kmlp.merge(model))
    assert (profile.trainable, profile.macs) == merged_repmlpnet(**given)


def test_resmlp_b24_is_quoted_with_larger_patches():
    with shapes_only():
        profile = kmlp.profile(kmlp.create_model("resmlp_b24", patch_size=16))
    row = reported("resmlp_b24")
    assert f"{profile.trainable / 1e6:.1f}" == row.parameters == "115.7"
    assert f"{profile.macs / 1e9:.1f}" == row.macs == "23.0"
    assert "(115.74 M, 23.02 G)" in row.notes[0]
    assert (
        f"{profile.trainable / 1e6:.2f} M, {profile.macs / 1e9:.2f} G" in row.notes[0]
    )


@pytest.mark.parametrize(
    ("name", "width", "deep", "words"),
    [
        ("msmlp_t", 96, 9, "4.87"),
        ("msmlp_s", 96, 27, "9.03"),
        ("msmlp_b", 128, 27, "16.05"),
    ],
)
def test_msmlps_are_counted_with_large_downsampling(name, width, deep, words):
    sides, depths = (56, 28, 14, 7), (3, 3, deep, 3)
    macs = 3 * 4**2 * width * sides[0] ** 2 + 8 * width * 1000
    for stage, (side, depth) in enumerate(zip(sides, depths)):
        channels = width * 2**stage
        macs += depth * side**2 * 2 * channels * 4 * channels
        if stage:
            macs += sides[stage - 1] ** 2 * 4 * channels // 2 * channels
    row = reported(name)
    assert f"{macs / 1e9:.1f}" == row.macs
    assert f"{macs / 1e9:.2f}" == words
    assert words in row.notes[0]


@pytest.mark.parametrize(
    ("size", "width", "words"),
    [("t", 96, "0.69"), ("s", 96, "0.69"), ("b", 128, "1.23")],
)
def test_hybrids_with_focal_are_counted_as_it_and_stage_zero(size, width, words):
    half, side = width // 2, 112
    mlps = 2 * side**2 * 2 * half * 4 * half
    halving = (side // 2) ** 2 * 4 * half * width
    added = (mlps + 4 * halving) / 1e9
    row = reported(f"msmlp_focal_{size}")
    plain = float(reported(f"focal_{size}").macs)
    assert f"{plain + added:.1f}" == row.macs
    assert f"{added:.2f}" == words
    assert words in row.notes[-1]


@pytest.mark.parametrize(
    ("name", "source", "figures"),
    [
        ("convmlp/table2/mlp_merge", "ConvMLP, Table 2", ("7.88", "1.47", 63.29)),
        ("repmlpnet/table4/resmlp_1x1", "RepMLPNet, Table 4", ("", "", 57.96)),
        ("msmlp/figure3/global_patch2", "MS-MLP, Figure 3", ("", "", None)),
        ("resmlp/appendix_a/distilled", "ResMLP, Appendix A", ("", "", 81.5)),
    ],
)
def test_ablations_too(name, source, figures):
    row = reported(name)
    assert (row.name, row.source) == (name, source)
    assert (row.parameters, row.macs, row.top1) == figures
    assert row.data == ("CIFAR-100" if "resmlp_1x1" in name else "ImageNet-1k")


def test_files_of_the_papers_hold_what_their_tables_say():
    for paper in papers.PAPERS:
        found = papers.read(paper)
        known = papers.read("notes") | found.get("notes", {})
        for table in (*found["tables"], *found.get("dense", ())):
            columns, common = table["columns"], table.get("common", {})
            for row in table["rows"]:
                own = row[-1] if isinstance(row[-1], dict) else {}
                assert len(row) - bool(own) <= len(columns), (table["name"], row)
                for note in (*own.get("notes", ()), *common.get("notes", ())):
                    name = note if isinstance(note, str) else note[0]
                    assert name in known or name.endswith("."), (table["name"], note)
    for kind in ("tables", "dense"):
        rows = [row["name"] for row in papers.table_rows(kind)]
        written = [
            row
            for paper in papers.PAPERS
            for table in papers.read(paper).get(kind, ())
            for row in table["rows"]
        ]
        assert len(set(rows)) == len(written)


def test_a_figure_stands_once_and_others_refer_to_it():
    """What a row takes from another, from several and from one that takes it, too."""
    own, by_other = REPORTED["resmlp_s24"][0], REPORTED["resmlp_s24"][2]
    assert by_other.source == "RepMLPNet, Table 2"
    assert by_other.top1 == own.top1 == 79.4
    assert (own.parameters, by_other.parameters) == ("30", "30.0")
    cifar = reported("repmlpnet_cifar")
    with_branches, without = (
        ABLATIONS[f"repmlpnet/table4/repmlpnet_{words}"] for words in ("both", "none")
    )
    assert (cifar.top1, cifar.macs) == (with_branches.top1, without.macs)
    assert ABLATIONS["smlpnet/table4/parallel_identity"].parameters == ""
    top1 = papers.top1_of("convmlp/table4/finetune_cifar10/*")
    assert top1 == {"convmlp_s": 98.0, "convmlp_m": 98.6, "convmlp_l": 98.6}
