"""Records of prepared data sets, each to be read by its number."""

import bisect
import concurrent.futures
import dataclasses
import functools
import itertools
import os
import struct
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

THREADS = 32
# A TFRecord: its length and a checksum of that, itself, a checksum of it.
_HEADER, _FOOTER = 12, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Images in TFRecord or ArrayRecord files.

    Args:
        shards: `FileInstruction`s of TensorFlow Datasets: names of files, and how many
            records of each to skip and to take.
        features: of the data set.
        image, label: names of the image and of its class.
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
        """A function of an index to the record's bytes."""
        array = ".array_record" in str(self.shards[0].filename)
        return (_array_records if array else _records)(self.shards)

    def reader(self):
        """A function of an index to `(encoded image, label)`, for a graph."""
        names = (self.image, self.label)
        features = tfds.features.FeaturesDict({n: self.features[n] for n in names})
        decoders = {self.image: tfds.decode.SkipDecoding()}
        record = self._record

        def read(index):
            serialized = tf.numpy_function(record, [index], tf.string)
            example = features.deserialize_example(
                tf.ensure_shape(serialized, ()), decoders=decoders
            )
            return example[self.image], tf.cast(example[self.label], tf.int32)

        return read

    def place(self, index):
        """Where an image lies, for people."""
        shard, number = _locator(self.shards)(index)
        return f"record {number} of {shard.filename}"

    def size_in_bytes(self):
        """Of the files, as a whole."""
        return sum(os.path.getsize(shard.filename) for shard in self.shards)


def _records(shards):
    """A function of an index to the bytes of a TFRecord."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(lambda shard: _offsets(shard.filename), shards))
    places = [
        offsets[shard.skip : shard.skip + _taken(shard)]
        for shard, offsets in zip(shards, found)
    ]
    files = np.repeat(np.arange(len(shards)), [len(place) for place in places])
    places = np.concatenate(places)

    def record(index):
        offset, length = places[index]
        file = os.open(shards[files[index]].filename, os.O_RDONLY)
        try:
            return os.pread(file, int(length), int(offset))
        finally:
            os.close(file)

    return record


def _offsets(path):
    """Place and length of every record in a TFRecord file, `(N, 2)` int64."""
    found, offset = [], 0
    file = os.open(path, os.O_RDONLY)
    try:
        # Headers lie far apart: what is read ahead of them would be wasted.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        end = os.fstat(file).st_size
        while offset < end:
            (length,) = struct.unpack("<Q", os.pread(file, 8, offset))
            found.append((offset + _HEADER, length))
            offset += _HEADER + length + _FOOTER
    finally:
        os.close(file)
    return np.array(found, np.int64).reshape(-1, 2)


def _array_records(shards):
    """The same of ArrayRecords, whose files have an index."""
    from array_record.python.array_record_module import ArrayRecordReader

    locate = _locator(shards)

    @functools.cache
    def opened(path):
        # Nothing is read ahead: the order is random.
        return ArrayRecordReader(path, "readahead_buffer_size:0")

    def record(index):
        shard, number = locate(index)
        (found,) = opened(str(shard.filename)).read([number])
        return found

    return record


def _locator(shards):
    """A function of an index to the shard and the record's number in its file."""
    ends = list(itertools.accumulate(map(_taken, shards)))

    def locate(index):
        number = bisect.bisect_right(ends, index)
        shard = shards[number]
        return shard, int(index - ends[number] + _taken(shard) + shard.skip)

    return locate


def _taken(shard):
    return shard.examples_in_shard - shard.skip if shard.take == -1 else shard.take
