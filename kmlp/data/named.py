"""Data sets of TensorFlow Datasets, prepared on this machine or fetched on request."""

import dataclasses
import difflib

import tensorflow_datasets as tfds

from kmlp import statistics
from kmlp.data.images import Source, Split
from kmlp.data.records import Records
from kmlp.errors import InputError


@dataclasses.dataclass(frozen=True)
class Known:
    """What TensorFlow Datasets does not say of a set.

    Attributes:
        train: splits to train on, in its notation; `None`: `train`.
        validation: splits to test on; `None`: `validation`, or else `test`.
        mean, std: per channel, of images in 0…1.
    """

    train: str | None = None
    validation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


_IMAGENET = Known(**statistics.IMAGENET._asdict())
KNOWN = {
    "imagenet2012": _IMAGENET,
    "imagenet_v2": _IMAGENET,
    "i_naturalist2018": _IMAGENET,
    "cars196": _IMAGENET,
    "cifar10": Known(**statistics.CIFAR10._asdict()),
    "cifar100": Known(**statistics.CIFAR100._asdict()),
    # The transfer results in the papers are of networks trained on both.
    "oxford_flowers102": Known(
        train="train+validation",
        validation="test",
        **statistics.FLOWERS102._asdict(),
    ),
}
# What has to be fetched by hand: the files and where they are.
BY_HAND = {
    "imagenet2012": (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org/download.php"
    ),
}


def named_set(name, data_dir=None, *, download=False, on_corrupt="stop"):
    """A data set of TensorFlow Datasets as a `Source`.

    Args:
        name: such as `cifar10`; a configuration or version as in `NAME/CONFIG` or
            `NAME:VERSION`.
        data_dir: where prepared sets lie; `None`: the package's default.
        download: whether a set that is not there is fetched and prepared.
        on_corrupt: `"stop"` or `"skip"` where images cannot be decoded.

    Raises:
        InputError: no such set, one that is not prepared, or not one of images by
            class.
    """
    builder = _builder(name, data_dir)
    features = builder.info.features
    image, label = _keys(builder.info)
    if label is None:
        raise InputError(
            "Only sets of images by class can be used; this has "
            f"{', '.join(features or {}) or 'neither'}. Received: tfds:{name}"
        )
    if not builder.is_prepared():
        if not download:
            raise InputError(_instructions(builder))
        _download(builder)
    known = KNOWN.get(builder.name, Known())
    splits = builder.info.splits
    found = [n for n in ("validation", "test") if n in splits]
    train = known.train or ("train" if "train" in splits else None)
    validation = known.validation or (found[0] if found else None)
    if validation is None:
        raise InputError(
            "There is neither validation nor test among the splits: "
            f"{', '.join(splits)}. Received: tfds:{name}"
        )

    def split(selected):
        return Split(
            name=f"tfds:{name} {selected}",
            store=Records(splits[selected].file_instructions, features, image, label),
            mean=known.mean,
            std=known.std,
            on_corrupt=on_corrupt,
        )

    return Source(
        name=f"tfds:{name}",
        class_names=tuple(features[label].names),
        train=split(train) if train else None,
        validation=split(validation),
    )


def _builder(name, data_dir):
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():  # perhaps in another version
            builder = _as_it_lies(name, data_dir) or builder
    except tfds.core.registered.DatasetNotFoundError as error:
        known = difflib.get_close_matches(name, tfds.list_builders(), n=3)
        hint = f": did you mean {' or '.join(known)}?" if known else "."
        raise InputError(
            f"TensorFlow Datasets knows no set of this name{hint} Received: tfds:{name}"
        ) from error
    except Exception as error:  # a bad configuration or version, in many types
        raise InputError(f"{error} Received: tfds:{name}") from error
    return builder


def _as_it_lies(name, data_dir):
    try:
        return tfds.core.read_only_builder.builder_from_files(
            name.partition(":")[0], data_dir=data_dir
        )
    except tfds.core.registered.DatasetNotFoundError:
        return None


def _keys(info):
    """Names of the image and of its class; `None` where there is no such feature."""
    pair = info.supervised_keys
    if not isinstance(pair, tuple) or len(pair) != 2:
        pair = (None, None)
    found = []
    for wanted, kind in zip(pair, (tfds.features.Image, tfds.features.ClassLabel)):
        keys = [k for k, feature in info.features.items() if isinstance(feature, kind)]
        found.append(wanted if wanted in keys else next(iter(keys), None))
    return found if None not in found else (None, None)


def _instructions(builder):
    """What to fetch and where to put it."""
    name = builder.name
    root = str(builder.data_dir).partition(f"/{name}/")[0]
    first = f"tfds:{name} is not prepared in {str(builder.data_dir)!r}: "
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        files = BY_HAND.get(name)
        if files is None:
            words = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
            files = f"what it needs ({words.rstrip('.')})"
        first += f"put {files} into {root}/downloads/manual, then "
    return (
        f"{first}give the same command with --download, or prepare it elsewhere and "
        f"copy the folder {name} into {root}, or name another --data-dir. "
        f"Received: --data tfds:{name}"
    )


def _download(builder):
    print(f"Preparing {builder.name} in {builder.data_dir}", flush=True)
    try:
        # Asking Google's storage for a prepared copy can hang for minutes.
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # network, disk, missing files: of many types
        raise InputError(f"{_instructions(builder)} ({error})") from error
