"""A paper's table of ablations as a study: its rows, how large they are trained."""

import dataclasses
import difflib
import types
from typing import Any

from kmlp.errors import InputError
from kmlp.models.papers import ABLATIONS, Row
from kmlp.models.registry import described, variant
from kmlp.recipes.choosing import LARGEST_SMALL

NONE = "_none"  # how the row ends from which gains are counted


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large a study is.

    Attributes:
        name: Name for people and folders.
        training, test: Images in all; `None`: all there are.
        epochs: Epochs of each row; `None`: the recipe's.
        arguments: Arguments by class that make its networks smaller; `None`: they are
            the table's own.
    """

    name: str
    training: int | None = None
    test: int | None = None
    epochs: int | None = None
    arguments: dict[str, dict[str, Any]] | None = None


# Smoke is a rehearsal: eight rows of Table 4 in a quarter of an hour on two cores.
SCALES = types.MappingProxyType(
    {
        "full": Scale("full"),
        "smoke": Scale(
            "smoke",
            training=10_000,
            test=2000,
            epochs=8,
            arguments={
                "RepMLPNet": {
                    "depths": (1, 1),
                    "widths": (32, 64),
                    "share_sets": (4, 8),
                },
                # With patches of 2 so narrow a network learns little but colours.
                "ResMLP": {"depth": 4, "width": 64, "patch_size": 4},
            },
        ),
    }
)


@dataclasses.dataclass(frozen=True)
class Study:
    """A table of ablations, to be trained.

    Attributes:
        name: Name, `paper/table`.
        rows: Rows from `kmlp.models.papers`, in the table's order.
        scale: Size of the study.
    """

    name: str
    rows: tuple[Row, ...]
    scale: Scale

    @property
    def folder(self) -> str:
        """Name of the study's folder."""
        suffix = "" if self.scale.name == "full" else f"-{self.scale.name}"
        return self.name.replace("/", "_") + suffix

    def arguments(self, row: Row) -> tuple[type, dict[str, Any]]:
        """Return class and arguments of a row's network at this scale."""
        family, arguments = variant(row.name)
        return family, {**arguments, **self.smaller(row)}

    def smaller(self, row: Row) -> dict[str, Any]:
        """Return the arguments of a row's network that the scale decides."""
        if self.scale.arguments is None:
            return {}
        return self.scale.arguments[described(row.name)[0]]

    def reference(self, row: Row) -> Row:
        """Return the row that another's gain is over: without what is studied."""
        alike = [r for r in self.rows if r.architecture == row.architecture]
        return next((r for r in alike if r.name.endswith(NONE)), alike[0])


def tables() -> list[str]:
    """Return the names of all tables of ablations, `paper/table`."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in ABLATIONS))


def listed() -> str:
    """List the tables that a study can train, for the terminal."""
    lines = []
    for name in tables():
        rows = rows_of(name)
        others = sum(n.startswith(f"{name}/") for n in ABLATIONS) - len(rows)
        more = f" ({others} more are for larger images)" if others else ""
        lines.append(f"{name:22} {len(rows):3} rows{more}")
    return "\n".join(lines)


def rows_of(name: str) -> tuple[Row, ...]:
    """Return the rows of a table that are trained together.

    Where a table has networks made for small images beside others, those alone.
    """
    rows = [row for row in ABLATIONS.values() if row.name.rpartition("/")[0] == name]
    small = [row for row in rows if made_for(row) <= LARGEST_SMALL]
    return tuple(small or rows)


def made_for(row: Row) -> int:
    """Return the height of the images that a row's network is made for."""
    return described(row.name)[1].get("input_shape", (224,))[0] or 224


def find(name: str, scale: str) -> Study:
    """Return a study by name.

    Args:
        name: Name of the table, `paper/table`.
        scale: Name of one of `SCALES`.

    Raises:
        InputError: If there is no such table or scale, or the scale does not know the
            table's networks.
    """
    known = tables()
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        choose = " or ".join(near) or f"one of {', '.join(known)}"
        raise InputError(f"Unknown study: choose {choose}. Received: --study {name}")
    if scale not in SCALES:
        raise InputError(
            f"The scale is one of {', '.join(SCALES)}. Received: --scale {scale}"
        )
    study = Study(name, rows_of(name), SCALES[scale])
    smaller = study.scale.arguments
    if smaller is not None:
        families = {described(row.name)[0] for row in study.rows}
        if unknown := sorted(families - set(smaller)):
            raise InputError(
                f"--scale {scale} is for networks of {' and '.join(sorted(smaller))}: "
                f"leave it out. Received: --study {name}, of {', '.join(unknown)}"
            )
    return study
