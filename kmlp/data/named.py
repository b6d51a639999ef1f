"""Records of prepared data sets, each to be read by its number."""

import bisect
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from kmlp import statistics
from kmlp.data.images import Source, Split
from kmlp.errors import InputError, nearest
from kmlp.typing import PathLike, Tensor

THREADS = 32
# A TFRecord: its length and a checksum of that, itself, a checksum of it.
_HEADER, _FOOTER = 12, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Images in TFRecord or ArrayRecord files.

    Args:
        shards: Shards as TensorFlow Datasets' `FileInstruction`s: names of files, and
            how many records of each to skip and to take.
        features: Features of the data set.
        image, label: Names of the image and of its class.
    """

    shards: list
    features: Any
    image: str
    label: str
    labels = None  # they come with the images
    in_memory = False

    def __len__(self):
        return sum(_taken(shard) for shard in self.shards)

    @functools.cached_property
    def _record(self):
        """Return a function of an index to the record's bytes."""
        array = ".array_record" in str(self.shards[0].filename)
        return (_array_records if array else _records)(self.shards)

    def reader(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return a function of an index to `(encoded image, label)`, for a graph."""
        names = (self.image, self.label)
        features = tfds.features.FeaturesDict({n: self.features[n] for n in names})
        decoders = {self.image: tfds.decode.SkipDecoding()}
        record = self._record

        def read(index: Tensor) -> tuple[Tensor, Tensor]:
            serialized = tf.numpy_function(record, [index], tf.string)
            example = features.deserialize_example(
                tf.ensure_shape(serialized, ()), decoders=decoders
            )
            return example[self.image], tf.cast(example[self.label], tf.int32)

        return read

    def place(self, index: int) -> str:
        """Return where an image lies, for people."""
        shard, number = _locator(self.shards)(index)
        return f"record {number} of {shard.filename}"

    def size_in_bytes(self) -> float:
        """Return the size of the files, as a whole."""
        return sum(os.path.getsize(shard.filename) for shard in self.shards)


def _records(shards):
    """Return a function of an index to the bytes of a TFRecord."""
    locate = _locator(shards)
    paths = list({str(shard.filename) for shard in shards})
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        offsets = dict(zip(paths, threads.map(_offsets, paths)))

    def record(index: int) -> bytes:
        shard, number = locate(index)
        offset, length = offsets[str(shard.filename)][number].tolist()
        with open(shard.filename, "rb", buffering=0) as file:
            file.seek(offset)
            return file.read(length)

    return record


def _offsets(path):
    """Return place and length of every record in a TFRecord file, `(N, 2)` int64."""
    found, offset, end = [], 0, os.path.getsize(path)
    with open(path, "rb", buffering=0) as file:
        # Headers lie far apart: what is read ahead of them would be wasted.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while offset < end:
            file.seek(offset)
            (length,) = struct.unpack("<Q", file.read(8))
            found.append((offset + _HEADER, length))
            offset += _HEADER + length + _FOOTER
    return np.array(found, np.int64).reshape(-1, 2)


def _array_records(shards):
    """Return the same function for ArrayRecords, whose files have an index."""
    from array_record.python.array_record_module import ArrayRecordReader

    locate = _locator(shards)

    @functools.cache
    def opened(path: str) -> Any:
        # Reading ahead is of no use in a random order.
        return ArrayRecordReader(path, "readahead_buffer_size:0")

    def record(index: int) -> bytes:
        shard, number = locate(index)
        (found,) = opened(str(shard.filename)).read([number])
        return found

    return record


def _locator(shards):
    """Return a function of an index to its shard and its number in the file."""
    ends = list(itertools.accumulate(map(_taken, shards)))

    def locate(index: int) -> tuple[Any, int]:
        number = bisect.bisect_right(ends, index)
        shard = shards[number]
        return shard, int(index - ends[number] + _taken(shard) + shard.skip)

    return locate


def _taken(shard):
    return shard.examples_in_shard - shard.skip if shard.take == -1 else shard.take


@dataclasses.dataclass(frozen=True)
class Known:
    """Facts about a set that TensorFlow Datasets does not know.

    Attributes:
        train: Splits to train on, in its notation; `None`: `train`.
        validation: Splits to test on; `None`: `validation`, or else `test`.
        mean, std: Statistics per channel, of images in 0…1.
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
# Files to fetch by hand, and where they are.
BY_HAND = {
    "imagenet2012": (
        "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        "https://image-net.org/download.php"
    ),
}


def named_set(
    name: str,
    data_dir: PathLike | None = None,
    *,
    download: bool = False,
    on_corrupt: str = "stop",
) -> Source:
    """Open a data set of TensorFlow Datasets.

    Args:
        name: Name such as `cifar10`; with a configuration or version `NAME/CONFIG` or
            `NAME:VERSION`.
        data_dir: Folder of prepared sets; `None`: the package's default.
        download: Whether a set that is missing is fetched and prepared.
        on_corrupt: What to do where images cannot be decoded, `"stop"` or `"skip"`.

    Raises:
        InputError: If there is no such set, it is not prepared, or has no images by
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

    def split(selected: str) -> Split:
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
            with contextlib.suppress(tfds.core.registered.DatasetNotFoundError):
                builder = tfds.core.read_only_builder.builder_from_files(
                    name.partition(":")[0], data_dir=data_dir
                )
    except tfds.core.registered.DatasetNotFoundError as error:
        known = nearest(name, tfds.list_builders())
        hint = f": did you mean {' or '.join(known)}?" if known else "."
        raise InputError(
            f"TensorFlow Datasets knows no set of this name{hint} Received: tfds:{name}"
        ) from error
    except Exception as error:  # a bad configuration or version, in many types
        raise InputError(f"{error} Received: tfds:{name}") from error
    return builder


def _keys(info):
    """Return the names of the image and of its class, `None` each if there is none."""
    pair = info.supervised_keys
    if not isinstance(pair, tuple) or len(pair) != 2:
        pair = (None, None)
    found = []
    for wanted, kind in zip(pair, (tfds.features.Image, tfds.features.ClassLabel)):
        keys = [k for k, feature in info.features.items() if isinstance(feature, kind)]
        found.append(wanted if wanted in keys else next(iter(keys), None))
    return found if None not in found else (None, None)


def _instructions(builder):
    """Say what to fetch and where to put it."""
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
