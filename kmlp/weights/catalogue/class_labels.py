"""Names of the classes that published weights tell apart."""

import functools
from importlib import resources

from kmlp.errors import InputError

LABELS = ("imagenet1k", "cifar10", "cifar100")


def class_names(labels):
    """Names of classes in the order of the outputs.

    ImageNet's are the first lemmas of their WordNet synsets, told apart where two
    synsets share one; CIFAR's are spelled as TensorFlow Datasets does.

    Args:
        labels: one of `LABELS`, or `None`.

    Returns:
        A tuple of strings, `None` for `None`.

    Raises:
        InputError: other labels.
    """
    return None if labels is None else _read(labels)[1]


def spellings(names):
    """All ways in which data may name the classes that `names` names.

    Folders of ImageNet, and TensorFlow Datasets, go by WordNet's synsets.

    Args:
        names: in the order of the outputs.

    Returns:
        A list of tuples in that order, that of `names` first.
    """
    ids, imagenet = _read("imagenet1k")
    names = tuple(names)
    return [names, ids] if names == imagenet else [names]


@functools.cache
def _read(labels):
    """Identifiers of the classes, `()` where they have none, and names."""
    if labels not in LABELS:
        raise InputError(
            f"Class names are known of {', '.join(LABELS)}. Received: {labels!r}"
        )
    file = resources.files("kmlp.weights.catalogue") / "classes" / f"{labels}.txt"
    lines = file.read_text("utf-8").splitlines()
    if labels != "imagenet1k":
        return (), tuple(lines)
    ids, _, names = zip(*(line.partition(" ") for line in lines))
    return ids, names
