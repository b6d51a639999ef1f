"""Every checkpoint that the five papers' authors published, and two conversions.

Conversions are mmpretrain's of RepMLPNet-B and timm's of ResMLP. A name is the
architecture's and a tag: who published, and what the weights were trained on.
"""

import dataclasses
import difflib
import fnmatch
import functools
from collections.abc import Iterable
from importlib import resources

from kmlp.errors import InputError
from kmlp.models.registry import described, list_models
from kmlp.statistics import CIFAR10, CIFAR100, FLOWERS102, IMAGENET

IMAGENET_TOP1 = "ImageNet-1k top-1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """A published checkpoint and what its authors say of it.

    Attributes:
        architecture: Name of `kmlp.list_models()`.
        tag: Name that tells the architecture's checkpoints apart.
        address: URL of the file.
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
        test_interpolation: `"bilinear"` or `"bicubic"`, for that resizing.
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
        """Architecture and tag, such as `"resmlp_s12.fb_in1k"`."""
        return f"{self.architecture}.{self.tag}"


def _repmlpnet():
    paper = {
        "reference": "arXiv:2112.11081",
        "test_interpolation": "bilinear",
    }
    for variant_name, drive_id, top1 in (
        ("t224", "1TgPDD78G-d3h_Y_vNTuqYdSJZHmnju7b", 76.62),
        ("b224", "1GwoUvxGXgzKArlCf0V9kvc9_3GtkGltp", 80.32),
        ("t256", "1mU0L76x20eAKzkHxEM7J2BvEOLWx_mux", 77.44),
        ("b256", "1W-__gXE7903cX-gOSXEGxNBCJjvqFCiJ", 81.03),
        ("d256", "1e5IYac0UHnJq2_lzbuE7J4rahMENX2ha", 80.83),
        ("l256", "1SHhNJ6pZax9qMLm8DJZtQ_XfmcmddPYU", 81.68),
    ):
        yield PublishedWeights(
            architecture=f"repmlpnet_{variant_name}",
            tag="dxh_in1k",
            # Drive shows a page of its own before large files; `confirm` skips it.
            address="https://drive.usercontent.google.com/download"
            f"?id={drive_id}&export=download&confirm=t",
            page=f"https://drive.google.com/file/d/{drive_id}/view",
            publisher="github.com/DingXiaoH/RepMLP",
            licence="MIT",
            top1=top1,
            image_size=int(variant_name[1:]),
            test_crop=1.0,
            **paper,
        )
    for size, resized, file, sha256, top1 in (
        (224, 256, "in1k_20220330-1cb1f11b", "1cb1f11b", 80.41),
        (256, 292, "in1k-256px_20220330-7c5a91ce", "7c5a91ce", 81.11),
    ):
        yield PublishedWeights(
            architecture=f"repmlpnet_b{size}",
            tag="mm_in1k",
            address="https://download.openmmlab.com/mmclassification/v0/repmlp/"
            f"repmlp-base_3rdparty_8xb64_{file}.pth",
            sha256=sha256,
            publisher="github.com/open-mmlab/mmpretrain",
            licence="Apache-2.0",
            top1=top1,
            image_size=size,
            test_crop=size / resized,
            **paper,
        )


def _convmlp():
    published = {
        "publisher": "github.com/SHI-Labs/Convolutional-MLPs",
        "reference": "arXiv:2109.04454",
        "licence": "Apache-2.0",
    }
    root = "https://shi-labs.com/projects/convmlp/checkpoints"
    for size, top1 in (("s", 76.8), ("m", 79.0), ("l", 80.2)):
        yield PublishedWeights(
            architecture=f"convmlp_{size}",
            tag="shi_in1k",
            address=f"{root}/convmlp_{size}_imagenet.pth",
            top1=top1,
            test_crop=0.9,
            **published,
        )
    for data, title, classes, labels, statistics, reported in (
        ("cifar10", "CIFAR-10", 10, "cifar10", CIFAR10, (98.0, 98.6, 98.6)),
        ("cifar100", "CIFAR-100", 100, "cifar100", CIFAR100, (87.4, 89.1, 88.6)),
        # The classes' order is whatever their copy of the data had.
        ("flowers102", "Flowers-102", 102, None, FLOWERS102, (99.5, 99.5, 99.5)),
    ):
        for size, top1 in zip("sml", reported):
            yield PublishedWeights(
                architecture=f"convmlp_{size}",
                tag=f"shi_{data}",
                address=f"{root}/convmlp_{size}_{data}.pth",
                top1=top1,
                metric=f"{title} top-1",
                num_classes=classes,
                labels=labels,
                test_crop=1.0,
                **statistics._asdict(),
                **published,
            )


def _msmlp():
    root = "https://tsciencescu.blob.core.windows.net/projectshzheng/MSMLP"
    for size, top1 in (("tiny", 82.1), ("small", 83.4), ("base", 83.8)):
        folder = f"msmlp_{size}_patch4"
        yield PublishedWeights(
            architecture=f"msmlp_{size[0]}",
            tag="jz_in1k",
            address=f"{root}/released_model/{folder}/{folder}_ckpt_epoch299.pth",
            publisher="github.com/JegZheng/MS-MLP",
            reference="arXiv:2202.06510",
            licence="MIT",
            top1=top1,
            test_crop=224 / 256,
        )


def _smlpnet():
    for size, top1 in (("s", 83.1), ("b", 83.4)):
        yield PublishedWeights(
            architecture=f"smlpnet_{size}",
            tag="ms_in1k",
            address="https://github.com/microsoft/SPACH/releases/download/v1.0/"
            f"smlp_{size}.pth",
            publisher="github.com/microsoft/SPACH",
            reference="arXiv:2109.05422",
            licence="MIT",
            top1=top1,
            test_crop=224 / 256,
        )


def _resmlp():
    files = {"s12": "resmlp_12", "s24": "resmlp_24", "s36": "resmlp_36"}
    files["b24"] = "resmlpB_24"
    knn = {"metric": "ImageNet-1k k-NN", "num_classes": 0, "labels": None}
    checkpoints = [
        (size, tag, f"{files[size]}_{ending}.pth", top1, more)
        for tag, ending, more, reported in (
            ("fb_in1k", "no_dist", {}, (76.6, 79.4, 79.7, 81.0)),
            ("fb_distilled_in1k", "dist", {}, (77.8, 80.8, 81.1, 83.6)),
            ("fb_in22k_ft_in1k", "22k", {}, (None, None, None, 84.4)),
            ("fb_dino", "dino", knn, (62.6, 69.4)),
        )
        for size, top1 in zip(files, reported)
        if top1 is not None
    ]
    paper = {"reference": "arXiv:2105.03404", "licence": "Apache-2.0"}
    for size, tag, file, top1, more in checkpoints:
        yield PublishedWeights(
            architecture=f"resmlp_{size}",
            tag=tag,
            address=f"https://dl.fbaipublicfiles.com/deit/{file}",
            publisher="github.com/facebookresearch/deit",
            top1=top1,
            test_crop=0.9,
            **paper,
            **more,
        )
    for size, tag, _, top1, more in checkpoints:
        theirs = {"b24": "big_24"}.get(size, size[1:])
        page = f"https://huggingface.co/timm/resmlp_{theirs}_224.{tag}"
        yield PublishedWeights(
            architecture=f"resmlp_{size}",
            tag=f"timm_{tag}",
            address=f"{page}/resolve/main/model.safetensors",
            publisher=page.removeprefix("https://"),
            top1=top1,
            test_crop=0.875,
            **paper,
            **more,
        )


# By name; of one architecture, authors' files stand before conversions.
WEIGHTS = {
    entry.name: entry
    for family in (_repmlpnet, _convmlp, _msmlp, _smlpnet, _resmlp)
    for entry in family()
}


DEFAULT = "default"
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
            `"default"`: the best reported top-1 on ImageNet-1k, the authors' file
            where a conversion has the same.

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
