"""Every checkpoint that the five papers' authors published, and two conversions.

Conversions are mmpretrain's of RepMLPNet-B and timm's of ResMLP; one network was
trained here and comes with the package. A name is the architecture's and a tag: who
published, and what the weights were trained on.
"""

import csv
import dataclasses
import difflib
import fnmatch
import functools
from collections.abc import Iterable
from importlib import resources
from typing import Any

from kmlp import statistics
from kmlp.errors import InputError
from kmlp.models.registry import described, list_models
from kmlp.statistics import IMAGENET

IMAGENET_TOP1 = "ImageNet-1k top-1"
_NUMBERS = {"top1": float, "num_classes": int, "image_size": int, "test_crop": float}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published checkpoint and what its authors say of it.

    Attributes:
        architecture: Name of `kmlp.list_models()`.
        tag: Name that tells the architecture's checkpoints apart.
        address: URL of the file, or `"package:"` and its path beside this module.
        page: Page where a person finds it; `None`: the address does it.
        sha256: Hash, or as many leading digits as are published, or `None`.
        publisher: Repository of the publishers.
        reference: Paper.
        licence: SPDX identifier of the repository's licence.
        top1: Percentage that the publishers report.
        metric: Name of what `top1` measures.
        num_classes: Classes of the head; 0 where none is promised.
        labels: One of `LABELS`, or `None` where the classes' order is unknown.
        image_size: Height and width in pixels.
        mean, std: Statistics per channel, of images in 0…1.
        test_crop: Side of the centre crop as a share of the resized shorter side.
        test_interpolation: Interpolation of that resizing, `"bilinear"` or `"bicubic"`.
    """

    architecture: str
    tag: str
    address: str
    page: str | None = None
    sha256: str | None = None
    publisher: str
    reference: str
    licence: str
    top1: float
    metric: str = IMAGENET_TOP1
    num_classes: int = 1000
    labels: str | None = "imagenet1k"
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET.mean
    std: tuple[float, float, float] = IMAGENET.std
    test_crop: float
    test_interpolation: str = "bicubic"

    @property
    def name(self) -> str:
        """Return the architecture and tag, such as `"resmlp_s12.fb_in1k"`."""
        return f"{self.architecture}.{self.tag}"

    @property
    def packaged(self) -> str | None:
        """Return the path in this package of weights that come with it, or `None`."""
        scheme, _, path = self.address.partition(":")
        return path if scheme == "package" else None


def _published():
    """Yield the table's rows; what an empty cell would say is unknown.

    Google Drive shows a page of its own before large files, which `confirm` skips. The
    classes of Flowers-102 are in the order of its authors' copy, whatever that was.
    """
    table = resources.files("kmlp.weights") / "published_weights.csv"
    for row in csv.DictReader(table.read_text("utf-8").splitlines()):
        cells: dict[str, Any] = {name: cell or None for name, cell in row.items()}
        for name, kind in _NUMBERS.items():
            cells[name] = kind(cells[name])
        measured = getattr(statistics, cells.pop("statistics").upper())
        yield PublishedWeights(**cells, **measured._asdict())


# By name; of one architecture, authors' files stand before conversions.
WEIGHTS = {entry.name: entry for entry in _published()}

DEFAULT = "default"
# Weights that come with the package, and so are there without a network.
PACKAGED = next(name for name, entry in WEIGHTS.items() if entry.packaged)
# Families of other papers -> the one whose recipe trains them here.
_OTHERS = {"mlp": "repmlpnet", "swin": "msmlp", "focal": "msmlp"}


def list_weights(pattern: str = "*") -> list[str]:
    """Return the names of the published weights that match a shell pattern, sorted.

    Args:
        pattern: Pattern of names, such as `"resmlp_*"` or `"*.fb_dino"`, or of
            architectures alone.
    """
    patterns = (pattern, f"{pattern}.*")
    return sorted({n for p in patterns for n in fnmatch.filter(WEIGHTS, p)})


def list_unpublished(pattern: str = "*") -> list[str]:
    """Return the architectures that match and have no weights listed, sorted.

    Args:
        pattern: Shell pattern, as in `list_weights`.
    """
    published = {entry.architecture for entry in WEIGHTS.values()}
    return [n for n in list_models(pattern.partition(".")[0]) if n not in published]


def published_weights(architecture: str, tag: str = DEFAULT) -> PublishedWeights:
    """Look up a published checkpoint.

    Args:
        architecture: Name of `kmlp.list_models()`.
        tag: Tag such as `"fb_in1k"`, also behind the architecture's name and a dot;
            `"default"`: the best reported top-1 on ImageNet-1k, or on what there is,
            the authors' file where a conversion has the same.

    Raises:
        InputError: If the architecture or tag is unknown or nothing was published for
            it; the message has the nearest tags, or the recipe.
    """
    described(architecture)
    received = f"Received: {architecture!r}, weights={tag!r}"
    entries = {e.tag: e for e in WEIGHTS.values() if e.architecture == architecture}
    if not entries:
        raise InputError(f"{_unpublished(architecture)} {received}")
    tag = str(tag).removeprefix(f"{architecture}.")
    if tag == DEFAULT:
        rated = [e for e in entries.values() if e.metric == IMAGENET_TOP1]
        return max(rated or entries.values(), key=lambda entry: entry.top1)
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
    """Say what to do where there are no weights."""
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


def class_names(labels: str | None) -> tuple[str, ...] | None:
    """Return the names of classes in the order of the outputs.

    ImageNet's are the first lemmas of their WordNet synsets, told apart where two
    synsets share one; CIFAR's are spelled as TensorFlow Datasets does.

    Args:
        labels: One of `LABELS`, or `None`, which has no names.

    Raises:
        InputError: If `labels` is another name.
    """
    return None if labels is None else _read(labels)[1]


def spellings(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return all ways in which data may name the classes that `names` names.

    Folders of ImageNet, and TensorFlow Datasets, go by WordNet's synsets.

    Args:
        names: Names in the order of the outputs.

    Returns:
        A list of tuples in that order, that of `names` first.
    """
    ids, imagenet = _read("imagenet1k")
    names = tuple(names)
    return [names, ids] if names == imagenet else [names]


@functools.cache
def _read(labels):
    """Return the classes' identifiers, `()` where they have none, and names."""
    if labels not in LABELS:
        raise InputError(
            f"Class names are known of {', '.join(LABELS)}. Received: {labels!r}"
        )
    file = resources.files("kmlp.weights") / "classes" / f"{labels}.txt"
    lines = file.read_text("utf-8").splitlines()
    if labels != "imagenet1k":
        return (), tuple(lines)
    ids, _, names = zip(*(line.partition(" ") for line in lines))
    return ids, names
