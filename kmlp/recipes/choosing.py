"""Choose a recipe by name, and which of them an architecture implies.

Where a paper and its published configuration differ, the paper counts and the recipe's
`notes` say the other value.
"""

import dataclasses
import re

from kmlp.errors import InputError, check_known
from kmlp.recipes.classification_recipe import ClassificationRecipe
from kmlp.recipes.paper_recipes import ENTRIES, FINETUNE_OWN, FOLDER, SMALL

# Images up to this size, and the embedded digits, have recipes of their own.
LARGEST_SMALL = 64

CATALOGUE = {entry.recipe.name: entry for entry in ENTRIES}
FINETUNE = FINETUNE_OWN

# Family's class -> the recipe that its architectures imply.
IMPLIED = {
    "RepMLPNet": "repmlpnet_imagenet",
    "ResMLP": "resmlp_imagenet",
    "ConvMLP": "convmlp_imagenet",
    "MSMLP": "msmlp_imagenet",
    "SMLPNet": "smlpnet_imagenet",
    "SwinTransformer": "msmlp_imagenet",
    "FocalTransformer": "msmlp_imagenet",
    "MSMLPHybrid": "msmlp_imagenet",
}
# RepMLPNet's paper trains Mixer by the settings of its own networks.
IMPLIED_BY_NAME = {"mlp_mixer_b16": IMPLIED["RepMLPNet"]}


def recipe_for(
    arch: str,
    *,
    name: str | None = None,
    small_images: bool = False,
    embedded: bool = False,
    pretrained: bool = False,
    data: str | None = None,
) -> ClassificationRecipe:
    """Return the recipe of an architecture, by name or implied.

    Args:
        arch: Architecture of `kmlp.list_models()` or `kmlp.list_ablations()`; the
            recipe of an ablation is that of the variant it changes, with the fields
            that its table states.
        name: Name from `list_recipes()`; `None`: the embedded digits and small images
            imply `small_images` (but `cifar100_locality` for small images and the
            networks made for CIFAR), other images the recipe of the family's paper.
            Where training begins with weights, it is the data's own fine-tuning, or
            `small_images` or `finetune` by what the network sees.
        small_images: Whether images are of at most `LARGEST_SMALL` pixels.
        embedded: Whether images are the embedded digits.
        pretrained: Whether training begins with weights.
        data: Name of the data, as `--data` takes it.

    Raises:
        InputError: If the architecture or recipe is unknown; the message names the
            nearest.
    """
    # Imported here: recipes are listed without waiting for Keras.
    from kmlp.models.papers import ABLATIONS
    from kmlp.models.registry import base_name, described

    family, _ = described(arch)
    base, row = base_name(arch), ABLATIONS.get(arch)
    implied = name is None
    if name is None and pretrained:
        # Strong augmentation takes more from small images than it gives.
        name = _fine_tuning(data) or (SMALL if small_images else FINETUNE)
    elif name is None:
        name = IMPLIED_BY_NAME.get(base, IMPLIED[family])
        if embedded or small_images:
            locality = base.endswith("_cifar") and not embedded
            name = "cifar100_locality" if locality else SMALL
    check_known(name, CATALOGUE, "recipe")
    recipe = CATALOGUE[name].of(base)
    if row is None or not implied or name == SMALL or pretrained:
        return recipe
    return dataclasses.replace(
        recipe,
        reproduces=f"{arch}, by the recipe of {base}",
        top1={} if row.top1 is None else {arch: row.top1},
        **row.recipe,
    )


def data_for(name: str | None) -> str | None:
    """Return the data that a fine-tuning recipe is for; `None`: any data.

    Raises:
        InputError: If the data have to be named.
    """
    if name is None or not name.startswith(FINETUNE) or name not in CATALOGUE:
        return None
    data = CATALOGUE[name].data
    if data == FOLDER:
        raise InputError(
            "TensorFlow Datasets does not have the images of this recipe: pass --data "
            f"FOLDER. Received: --recipe {name}"
        )
    return data or None


def _fine_tuning(data):
    """Return the recipe that fine-tunes on data of this name, or `None`."""
    # Whatever the configuration and version.
    name = re.split(r"[:/]", (data or "").removeprefix("tfds:"))[0]
    fits = [
        recipe
        for recipe, entry in CATALOGUE.items()
        if recipe.startswith(FINETUNE) and entry.data == f"tfds:{name}"
    ]
    return fits[0] if fits else None


def list_recipes() -> list[str]:
    """Return the names of the recipes, in the catalogue's order."""
    return list(CATALOGUE)


def table() -> str:
    """Say what the recipes reproduce, by which command and how well."""
    lines = []
    for name, entry in CATALOGUE.items():
        lines += [name, f"    {entry.recipe.reproduces}"]
        top1 = entry.recipe.top1
        if top1:
            expected = ", ".join(f"{arch} {value}" for arch, value in top1.items())
            implied = name in IMPLIED.values() or name == "cifar100_locality"
            choice = "" if implied else f" --recipe {name}"
            lines += [
                f"    top-1: {expected}",
                f"    training/train.py --arch {next(iter(top1))}{choice} "
                f"--data {entry.data}",
            ]
    return "\n".join(lines)
