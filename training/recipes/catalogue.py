"""The recipes by name, and which of them an architecture implies.

Where a paper and its published configuration differ, the paper counts and the recipe's
`notes` say the other value.
"""

import difflib

from training.console import Stop
from training.recipes import imagenet, transfer

# Images up to this size, and the embedded digits, have recipes of their own.
LARGEST_SMALL = 64

CATALOGUE = {
    entry.recipe.name: entry for entry in (*imagenet.ENTRIES, *transfer.ENTRIES)
}

# Family's class -> the recipe that its architectures imply.
IMPLIED = {
    "RepMLPNet": "repmlpnet_imagenet",
    "ResMLP": "resmlp_imagenet",
    "ConvMLP": "convmlp_imagenet",
    "MSMLP": "msmlp_imagenet",
    "SMLPNet": "smlpnet_imagenet",
}


def recipe_for(arch, *, name=None, small_images=False, embedded=False):
    """The recipe of an architecture, by name or implied.

    Args:
        arch: of `kmlp.list_models()`.
        name: of `list_recipes()`; `None`: the embedded digits and small images imply
            `small_images` (but `cifar100_locality` for small images and the networks
            made for CIFAR), other images the recipe of the family's paper.
        small_images: whether images are of at most `LARGEST_SMALL` pixels.
        embedded: whether they are the embedded digits.

    Raises:
        Stop: an unknown architecture or recipe; the message names the nearest.
    """
    # Imported here: recipes are listed without waiting for Keras.
    from kmlp.models.registry import variant

    try:
        family, _ = variant(arch)
    except ValueError as error:
        raise Stop(error) from error
    if name is None:
        name = IMPLIED[family.__name__]
        if embedded or small_images:
            locality = arch.endswith("_cifar") and not embedded
            name = "cifar100_locality" if locality else "small_images"
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name.lower(), CATALOGUE, n=3, cutoff=0.4)
        known = " or ".join(near) if near else f"one of {', '.join(CATALOGUE)}"
        raise Stop(f"Unknown recipe: choose {known}. Received: {name!r}")
    return CATALOGUE[name].of(arch)


def list_recipes():
    """Names of the recipes, in the catalogue's order."""
    return list(CATALOGUE)


def table():
    """Text for the terminal: what the recipes reproduce, by which command, how well."""
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
