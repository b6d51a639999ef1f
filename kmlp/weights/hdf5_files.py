"""HDF5 files' arrays, found and checked before any is read."""

import math
import zlib
from collections.abc import Iterator

import h5py

from kmlp.budget import ITEM, Budget

# Filters that hold no more than they say, and the one that may.
_PLAIN = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF)
_GZIP = h5py.h5z.FILTER_DEFLATE
_CHECKSUM = 4
# What HDF5 keeps of every chunk of a data set that it reads, there or not.
_CHUNK_KEPT = 4 << 10


def data_sets(file: h5py.File) -> Iterator[str]:
    """Yield the paths of all data sets; links out of the file are not followed."""
    seen, open_groups = {file}, [("", file)]
    while open_groups:
        prefix, group = open_groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}"
            elif isinstance(item, h5py.Group) and item not in seen:
                seen.add(item)  # a group can contain itself
                open_groups.append((f"{prefix}{name}/", item))


def check(data_set: h5py.Dataset, budget: Budget) -> None:
    """Compare what reading a data set allocates with what its file may declare.

    Raises:
        InputError: If it is more.
        ValueError: If it lies in another file, or in chunks that hold more than they
            say.
    """
    name = data_set.name
    # Both would read whatever file the checkpoint names.
    if data_set.is_virtual or data_set.external:
        raise ValueError(f"{name} lies in another file")
    if data_set.shape is None:
        raise ValueError(f"{name} holds nothing")
    item = data_set.dtype.itemsize
    chunk = item * math.prod(data_set.chunks or (0,))
    size = item * math.prod(data_set.shape)
    kept = _CHUNK_KEPT * size // chunk if chunk else 0
    budget.take(ITEM + max(size, chunk) + kept, f"the data set {name!r}")
    created = data_set.id.get_create_plist()
    filters = [created.get_filter(n)[0] for n in range(created.get_nfilters())]
    if unknown := sorted({*filters} - {*_PLAIN, _GZIP}):
        raise ValueError(f"{name} is compressed by filter {unknown[0]}")
    if _GZIP not in filters:
        return
    stored: list[h5py.h5d.StoreInfo] = []
    data_set.id.chunk_iter(stored.append)
    for info in stored:
        budget.take(info.size, f"chunks of {name!r}")
        _, raw = data_set.id.read_direct_chunk(info.chunk_offset)
        skipped = info.filter_mask >> filters.index(_GZIP) & 1
        # HDF5 inflates as long as there is something.
        most = chunk + _CHECKSUM
        if not skipped and len(zlib.decompressobj().decompress(raw, most + 1)) > most:
            raise ValueError(f"a chunk of {name} holds more than it may")
