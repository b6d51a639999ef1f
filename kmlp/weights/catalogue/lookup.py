"""Published checkpoints by name."""

import difflib
import fnmatch
import functools
from importlib import resources

from kmlp.errors import InputError
from kmlp.models.registry import described, list_models
from kmlp.weights.catalogue.publications import IMAGENET_TOP1, WEIGHTS, PublishedWeights

DEFAULT = "default"
# Families of other papers -> the one whose recipe trains them here.
_OTHERS = {"mlp": "repmlpnet", "swin": "msmlp", "focal": "msmlp"}


def list_weights(pattern: str = "*") -> list[str]:
    """Names of the published weights that match a shell pattern, sorted.

    Args:
        pattern: of names, such as `"resmlp_*"` or `"*.fb_dino"`, or of architectures
            alone.
    """
    patterns = (pattern, f"{pattern}.*")
    return sorted({n for p in patterns for n in fnmatch.filter(WEIGHTS, p)})


def list_unpublished(pattern: str = "*") -> list[str]:
    """Names of the architectures that match and have no weights listed, sorted.

    Args:
        pattern: as of `list_weights`.
    """
    published = {entry.architecture for entry in WEIGHTS.values()}
    return [n for n in list_models(pattern.partition(".")[0]) if n not in published]


def published_weights(architecture: str, tag: str = DEFAULT) -> PublishedWeights:
    """What is known of a published checkpoint.

    Args:
        architecture: of `kmlp.list_models()`.
        tag: such as `"fb_in1k"`, also behind the architecture's name and a dot;
            `"default"`: the best reported top-1 on ImageNet-1k, the authors' file
            where a conversion has the same.

    Returns:
        `PublishedWeights`.

    Raises:
        InputError: an unknown architecture or tag, or one that nothing was published
            for; the message has the nearest tags, or the recipe.
    """
    described(architecture)
    received = f"Received: {architecture!r}, weights={tag!r}"
    entries = {e.tag: e for e in WEIGHTS.values() if e.architecture == architecture}
    if not entries:
        raise InputError(f"{_unpublished(architecture)} {received}")
    tag = str(tag).removeprefix(f"{architecture}.")
    if tag == DEFAULT:
        rated = [e for e in entries.values() if e.metric == IMAGENET_TOP1]
        return max(rated, key=lambda entry: entry.top1)
    if tag in WEIGHTS:
        raise InputError(
            f"These weights are of {WEIGHTS[tag].architecture}: name that "
            f"architecture, or one of its own: {', '.join(entries)}. {received}"
        )
    if tag not in entries:
        near = difflib.get_close_matches(tag, entries, n=len(entries), cutoff=0)
        raise InputError(
            f"No such weights of {architecture}: choose {', '.join(near)}, or "
            f"{DEFAULT}. {received}"
        )
    return entries[tag]


def _unpublished(architecture):
    """What to do where there are no weights."""
    of_cifar = architecture.endswith("_cifar")
    family = architecture.partition("_")[0]
    paper = _OTHERS.get(family, family)
    recipe = "cifar100_locality" if of_cifar else f"{paper}_imagenet"
    data = "tfds:cifar100" if of_cifar else "tfds:imagenet2012"
    train = (
        f"train it, `python training/train.py --arch {architecture} --data {data}` "
        f"(the paper's recipe, {recipe}), and pass the run's folder."
    )
    if family in _OTHERS:
        return (
            f"The addresses of {architecture}'s weights are not listed here: pass its "
            f"authors' or timm's file as `weights`; or {train}"
        )
    return f"No weights of {architecture} were published: {train}"


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
