"""What the papers print of the architectures: parameters, multiply-adds, top-1.

Table by table: each paper has its own networks and quotes the others'. Where counts
made here do not agree with a figure, it is named and a note says why.
"""

import dataclasses
import re

from kmlp.models.ablations import ABLATIONS


@dataclasses.dataclass(frozen=True)
class Reported:
    """A network's row in a paper's table.

    Attributes:
        architecture: name of the variant.
        source: the paper and its table, such as `"ConvMLP, Table 3"`.
        parameters: in millions as the paper prints them, such as `"9.0"`.
        macs: multiply-adds in billions as the paper prints them (its FLOPs).
        top1: percent of `data`'s validation images as the paper prints it.
        training: how it was trained, where the paper says so in the table or beside it,
            such as `"100 epochs"`.
        data: what `top1` is on.
        image_size: of the square images.
        notes: why our counts differ, and how the figures are to be read.
        differs: names of the figures (`"parameters"`, `"macs"`) that our counts do not
            agree with to half a unit of the last digit, multiply-adds to 1.5 %; `notes`
            say why.
    """

    architecture: str
    source: str
    parameters: str
    macs: str
    top1: str
    training: str = ""
    data: str = "ImageNet-1k"
    image_size: int = 224
    notes: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()


_PAPERS = {
    "convmlp": "ConvMLP",
    "msmlp": "MS-MLP",
    "repmlpnet": "RepMLPNet",
    "resmlp": "ResMLP",
    "smlpnet": "sMLPNet",
}
_PARAMETERS, _MACS, _BOTH = ("parameters",), ("macs",), ("parameters", "macs")
_CUT = "The table cuts digits of the parameters off."
_UP = "The table rounds the parameters up."
_MERGED = (
    "RepMLPNet's paper counts merged networks and cuts digits off: merged, B256 and "
    "L256 have 96.52 and 117.75 M."
)
_MSMLP = (
    "What the table prints is met by counting channel MLPs, embeddings and classifier "
    "alone, with downsampling at the resolution of its input, four times too often: "
    "4.87, 9.03 and 16.05 G for T, S and B."
)
_PATCHES = (
    "The quoted counts are of patches of 16x16 pixels (115.74 M, 23.02 G); the network "
    "that was published and is built here, also with 81.0 %, has patches of 8x8."
)
_BRANCHES = (
    "The counts are without local branches, with which the table has 3,360 parameters "
    "and 2,949 K multiply-adds more."
)
_SWIN = "ConvMLP's and sMLPNet's papers quote 83.5 %."

# (source, architecture): why counts differ, and which.
_NOTES = {
    ("RepMLPNet, Table 2", "repmlpnet_b256"): ((_MERGED,), _PARAMETERS),
    ("RepMLPNet, Table 2", "repmlpnet_l256"): ((_MERGED,), _PARAMETERS),
    ("RepMLPNet, Table 2", "resmlp_b24"): ((_PATCHES,), _BOTH),
    ("RepMLPNet, Table 2", "mlp_mixer_b16"): ((_CUT,), _PARAMETERS),
    ("RepMLPNet, Table 4", "repmlpnet_cifar"): ((_BRANCHES,), ()),
    ("ConvMLP, Table 3", "resmlp_s12"): ((_CUT,), _PARAMETERS),
    ("ConvMLP, Table 3", "resmlp_b24"): ((_PATCHES,), _BOTH),
    ("MS-MLP, Table 3", "msmlp_t"): ((_MSMLP, _CUT), _BOTH),
    ("MS-MLP, Table 3", "msmlp_s"): ((_MSMLP,), _MACS),
    ("MS-MLP, Table 3", "msmlp_b"): ((_MSMLP, _CUT), _BOTH),
    ("MS-MLP, Table 3", "resmlp_b24"): ((_PATCHES,), _BOTH),
    ("MS-MLP, Table 3", "mlp_mixer_b16"): ((_CUT,), _PARAMETERS),
    ("MS-MLP, Table 5", "swin_b"): ((_SWIN,), ()),
    ("sMLPNet, Table 6", "mlp_mixer_b16"): ((_CUT,), _PARAMETERS),
    ("sMLPNet, Table 6", "swin_t"): ((_UP,), _PARAMETERS),
}


def _table(source, *rows, training="", **common):
    """Rows of (architecture, parameters, macs, top1[, training])."""
    for architecture, parameters, macs, top1, *own in rows:
        notes, differs = _NOTES.get((source, architecture), ((), ()))
        yield Reported(
            architecture,
            source,
            parameters,
            macs,
            top1,
            training=own[0] if own else training,
            notes=notes,
            differs=differs,
            **common,
        )


def _of_ablations(source, table):
    """Rows that the paper's ablations have too."""
    for name, row in ABLATIONS.items():
        if name.startswith(f"{table}/"):
            parts = (part.strip() for part in row.note.partition(_UP))
            own = tuple(filter(None, parts)), row.differs
            notes, differs = _NOTES.get((source, row.architecture), own)
            yield Reported(
                row.architecture,
                source,
                row.parameters,
                row.macs,
                f"{row.top1}",
                notes=notes,
                differs=differs,
            )


# A network's own paper stands before those that quote it; of quotes the most exact.
_ROWS = (
    *_table(
        "RepMLPNet, Table 2",
        ("repmlpnet_t224", "38.3", "2.79", "76.4"),
        ("repmlpnet_b224", "68.2", "6.65", "80.1"),
        training="100 epochs",
    ),
    *_table(
        "RepMLPNet, Table 2",
        ("repmlpnet_t256", "58.7", "4.24", "77.5"),
        ("repmlpnet_d256", "86.9", "8.61", "80.8"),
        ("repmlpnet_b256", "96.5", "9.61", "81.0"),
        ("repmlpnet_l256", "117.7", "11.5", "81.8"),
        training="100 epochs",
        image_size=256,
    ),
    *_table(
        "RepMLPNet, Table 4",
        ("repmlpnet_cifar", "8.3", "0.468", "67.43"),
        ("resmlp_12_cifar", "7.1", "1.812", "55.58"),
        data="CIFAR-100",
        image_size=32,
    ),
    *_table(
        "ResMLP, Table 1",
        ("resmlp_s12", "15", "3.0", "76.6"),
        ("resmlp_s24", "30", "6.0", "79.4"),
        ("resmlp_s36", "45", "8.9", "79.7"),
    ),
    *_table(
        "ConvMLP, Table 3",
        ("convmlp_s", "9.0", "2.4", "76.8"),
        ("convmlp_m", "17.4", "3.9", "79.0"),
        ("convmlp_l", "42.7", "9.9", "80.2"),
        ("resmlp_s12", "15.3", "3.0", "76.6"),
        ("resmlp_s24", "30.0", "6.0", "79.4"),
        ("resmlp_b24", "115.7", "23.0", "81.0"),
        ("mlp_mixer_b16", "59.9", "12.6", "76.4"),
    ),
    *_table("ConvMLP, Table 2", ("convmlp_s", "9.02", "2.40", "76.81", "300 epochs")),
    *_table(
        "MS-MLP, Table 3",
        ("msmlp_t", "28", "4.9", "82.1"),
        ("msmlp_s", "50", "9.0", "83.4"),
        ("msmlp_b", "88", "16.1", "83.8"),
        training="300 epochs",
    ),
    *_of_ablations("MS-MLP, Table 5", "msmlp/table5"),
    *_table(
        "sMLPNet, Table 6",
        ("smlpnet_t_a2", "19.2", "4.0", "81.3"),
        ("smlpnet_t", "24.1", "5.0", "81.9"),
        ("smlpnet_s", "48.6", "10.3", "83.1"),
        ("smlpnet_b", "65.9", "14.0", "83.4"),
    ),
    # What papers quote of others' networks, and their own runs of them.
    *_table("ConvMLP, Table 3", ("swin_b", "87.8", "15.4", "83.5")),
    *_table(
        "RepMLPNet, Table 2",
        ("resmlp_s12", "15.4", "3.0", "76.6", "400 epochs as DeiT"),
        ("resmlp_s12", "15.4", "3.0", "67.7", "120 epochs"),
        ("resmlp_s12", "15.4", "3.0", "70.4", "120 epochs, RepMLPNet's run"),
        ("resmlp_s24", "30.0", "6.0", "79.4", "400 epochs as DeiT"),
        ("resmlp_b24", "115.7", "23.0", "81.0", "400 epochs as DeiT"),
        ("mlp_mixer_b16", "59.8", "12.6", "76.7", "100 epochs, RepMLPNet's run"),
        ("mlp_mixer_b16", "59", "12.6", "76.4", "300 epochs"),
    ),
    *_table(
        "MS-MLP, Table 3",
        ("resmlp_s12", "15", "3.0", "76.6"),
        ("resmlp_b24", "116", "23.0", "81.0"),
        ("mlp_mixer_b16", "59", "12.7", "76.4"),
    ),
    *_table(
        "sMLPNet, Table 6",
        ("resmlp_s12", "15", "3.0", "76.6"),
        ("resmlp_s24", "30", "6.0", "79.4"),
        ("resmlp_s36", "45", "8.9", "79.7"),
        ("mlp_mixer_b16", "59", "12.7", "76.4"),
        ("swin_t", "29", "4.5", "81.3"),
        ("swin_s", "50", "8.7", "83.0"),
        ("swin_b", "88", "15.4", "83.5"),
    ),
)

# Name -> what papers print of it, its own paper's first.
REPORTED = {
    name: tuple(row for row in _ROWS if row.architecture == name)
    for name in dict.fromkeys(row.architecture for row in _ROWS)
}


def reported(name):
    """What a network's own paper, else the first that quotes it, prints of it.

    Args:
        name: of `list_models()` or `list_ablations()`.

    Returns:
        A `Reported`, of an ablation with `""` where its table has no figure; `None`
        where no paper has the network.
    """
    if name in REPORTED:
        return REPORTED[name][0]
    if name not in ABLATIONS:
        return None
    row = ABLATIONS[name]
    base = reported(row.architecture)
    paper, place, _ = name.split("/")
    word, where = re.fullmatch(r"([a-z]+)_?(\d+|[a-z])", place).groups()
    return Reported(
        name,
        f"{_PAPERS[paper]}, {word.capitalize()} {where.upper()}",
        row.parameters,
        row.macs,
        "" if row.top1 is None else f"{row.top1}",
        data=base.data,
        image_size=base.image_size,
        notes=(row.note,) if row.note else (),
        differs=row.differs,
    )
