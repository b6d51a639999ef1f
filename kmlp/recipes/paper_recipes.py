"""The papers' recipes of classification, and those for one's own weights and images.

They are of ImageNet, of fine-tuning, of CIFAR-100 from scratch, and of small images.
`paper_recipes.toml` holds them by name, each with the fields of `ClassificationRecipe`
and `Entry` that differ from the defaults:

- `like` names the tables before it, of `recipes` or `shared`, whose fields hold where a
  table has none of its own; of several, the later ones count.
- `top1` holds shell patterns of rows of the papers' tables, and figures that are in
  none.
- `notes` holds texts, and names of `notes`.
- `statistics` names mean and deviation, as `kmlp.statistics` does.
- `"none"` leaves a field open, as on the command line.
"""

import tomllib
from pathlib import Path

import kmlp.statistics
from kmlp.models.papers import top1_of
from kmlp.recipes.classification_recipe import ClassificationRecipe, Entry
from kmlp.recipes.recipe import parse
from kmlp.typing import Config

# The recipes for weights and data that no paper names.
FINETUNE_OWN, SMALL = "finetune", "small_images"
FOLDER = "FOLDER"  # of an entry whose images have no name


def read_entries(text: str) -> tuple[Entry, ...]:
    """Return the recipes that a file such as `paper_recipes.toml` holds, in its order.

    Args:
        text: Content of the file.

    Raises:
        TypeError: If a recipe has an unknown field, or lacks one that has no default.
        KeyError: If `like` names no table before it.
        AttributeError: If `statistics` names none of `kmlp.statistics`.
        InputError: If a value has the wrong type or is out of range.
    """
    file = tomllib.loads(text)
    filled: dict[str, Config] = {}
    for name, own in (file["shared"] | file["recipes"]).items():
        fields: Config = {}
        for other in own.pop("like", ()):
            fields |= filled[other]
        if "statistics" in own:
            known = getattr(kmlp.statistics, own.pop("statistics"))
            own |= known._asdict()
        filled[name] = fields | own
    return tuple(_entry(name, filled[name], file["notes"]) for name in file["recipes"])


def _entry(name, fields, known_notes):
    entry = {key: fields.pop(key) for key in ("data", "by_arch") if key in fields}
    top1 = {}
    for rows in fields.pop("top1", ()):
        top1 |= top1_of(rows) if isinstance(rows, str) else rows
    notes = "".join(known_notes.get(note, note) for note in fields.pop("notes", ()))
    hints = ClassificationRecipe.hints()
    for field, value in fields.items():
        if value == "none" and parse(value, hints.get(field)) is None:
            fields[field] = None
    return Entry(
        ClassificationRecipe(name=name, top1=top1, notes=notes, **fields), **entry
    )


_FILE = Path(__file__).with_suffix(".toml")
ENTRIES = read_entries(_FILE.read_text("utf-8"))
