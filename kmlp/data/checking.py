"""One pass over a data set: what is in it, what is left out, what looks wrong."""

import collections
import concurrent.futures
import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.console import progress_bar, some, table
from kmlp.data.dense import KINDS, TASKS, DenseSource, DenseSplit, open_dense
from kmlp.data.dense.source import VOID, Objects
from kmlp.data.images import Files, Source, Split
from kmlp.data.pictures import Facts, Unreadable, facts_of, inspect
from kmlp.data.sources import open_source
from kmlp.typing import Config, PathLike

# Classes that the table on a terminal has; JSON has all.
SHOWN = 40
# Images that wait for a thread.
AT_ONCE = 1024


@dataclasses.dataclass
class Findings:
    """What was found in a split.

    Attributes:
        images: Number of images.
        classes: Images, or objects, or pixels by class.
        sizes: Height and width of every image that can be read.
        modes: Number of images by Pillow's mode, such as `"RGB"` and `"L"`.
        turned: JPEGs whose EXIF states that they lie on a side or are mirrored.
        unreadable: What cannot be used and why.
        contents: Place of an image by a digest of its pixels.
    """

    images: int
    classes: collections.Counter[int] = dataclasses.field(
        default_factory=collections.Counter
    )
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    modes: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    turned: int = 0
    unreadable: list[str] = dataclasses.field(default_factory=list)
    contents: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, seen: "_Seen") -> None:
        """Count an image."""
        if seen.trouble is not None:
            self.unreadable.append(seen.trouble)
        if seen.facts is not None:
            self.sizes.append(seen.facts.size)
            self.modes[seen.facts.mode] += 1
            self.turned += seen.facts.orientation > 1
            self.contents[seen.facts.digest] = seen.place
        self.classes += seen.classes

    def in_words(self) -> str:
        """Return images, sizes, modes and orientations in one line."""
        if not self.sizes:
            return f"{self.images:,} images"
        ordered = sorted(self.sizes, key=lambda size: size[0] * size[1])
        middle = [round(statistics.median(side)) for side in zip(*self.sizes)]
        ends = [ordered[0], ordered[-1]]
        sizes = " to ".join(_by(size) for size in dict.fromkeys(ends))
        if len(set(ends)) > 1:
            sizes += f", {_by(middle)} in the median"
        modes = ", ".join(f"{n:,} {mode}" for mode, n in self.modes.most_common())
        words = f"{self.images:,} images of {sizes} ({modes})"
        if self.turned:
            words += f", {self.turned:,} turned by EXIF (see --exif)"
        return words

    def as_json(self) -> Config:
        """Return it for a file."""
        return {
            "images": self.images,
            "sizes": [list(size) for size in sorted(set(self.sizes))],
            "modes": dict(self.modes),
            "turned_by_exif": self.turned,
            "unreadable": self.unreadable,
        }


@dataclasses.dataclass
class _Seen:
    """What one image came to."""

    place: str
    facts: Facts | None = None
    classes: collections.Counter[int] = dataclasses.field(
        default_factory=collections.Counter
    )
    trouble: str | None = None


@dataclasses.dataclass(frozen=True)
class Check:
    """What a data set came to.

    Attributes:
        source: Data set, as training opens it.
        counted: Noun of what is counted by class.
        splits: Findings of each split, by name.
        stops: Lines on what training would stop at.
        doubts: Lines on what looks wrong.
    """

    source: Source | DenseSource
    counted: str
    splits: dict[str, Findings]
    stops: list[str]
    doubts: list[str]

    def in_words(self) -> str:
        """Return summary, table and lines for people."""
        names = self.source.class_names
        rows = [
            (name, *(f"{found.classes[number]:,}" for found in self.splits.values()))
            for number, name in enumerate(names)
        ]
        lines = [self.source.in_words()]
        lines.append(table((self.counted, *self.splits), rows[:SHOWN]))
        if len(rows) > SHOWN:
            lines.append(f"and {len(rows) - SHOWN:,} more classes")
        lines += [f"{name}: {f.in_words()}" for name, f in self.splits.items()]
        lines += self.doubts
        lines += [f"Training would stop: {line}" for line in self.stops]
        return "\n".join(lines)

    def as_json(self) -> Config:
        """Return it for a file."""
        names = self.source.class_names
        splits = {
            split: found.as_json()
            | {self.counted: {n: found.classes[k] for k, n in enumerate(names)}}
            for split, found in self.splits.items()
        }
        return {
            "data": self.source.name,
            "splits": splits,
            "doubts": self.doubts,
            "stops": self.stops,
        }


def check_data(
    spec: str, *, data_dir: PathLike | None = None, exif: str = "ignore"
) -> Check:
    """Look at every image of a data set once.

    Args:
        spec: What `--data` of any task takes: `digits`, a folder, `tfds:NAME`, `scenes`
            or `KIND:DIR`.
        data_dir: Folder of TensorFlow Datasets' sets; `None`: its default.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`.

    Raises:
        InputError: If there is no such data, or none in a known layout: what training
            would stop at before it looks at an image.
    """
    kind = spec.partition(":")[0]
    task = next((t for t in TASKS if kind in KINDS[t]), None)
    if spec == "scenes":
        task = TASKS[0]
    if task is None:
        source: Any = open_source(None if spec == "digits" else spec, data_dir=data_dir)
        counted, splits = "images", source.splits
        look: Callable = _looker
    else:
        source = open_dense(spec, task, exif=exif)
        counted = "objects" if task == TASKS[0] else "pixels"
        splits = {"train": source.train, "validation": source.validation}
        look = _dense_looker
    findings = {name: _find(split, look) for name, split in splits.items()}
    return Check(
        source,
        counted,
        findings,
        stops=list(_stops(source, findings)),
        doubts=[*getattr(source, "notes", ()), *_doubts(splits, findings)],
    )


def _find(split, look):
    found = Findings(split.count)
    look = look(split)
    with (
        concurrent.futures.ThreadPoolExecutor() as threads,
        progress_bar(split.count, "img", desc=split.name) as bar,
    ):
        for start in range(0, split.count, AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, split.count))
            for seen in threads.map(look, numbers):
                found.add(seen)
                bar.update()
    return found


# Each returns a function of an index to what the image there came to.


def _looker(split: Split) -> Callable[[int], _Seen]:
    store = split.store
    in_files = isinstance(store, Files)
    # A reader takes all images of a store in memory with it: one serves them all.
    read = None if in_files else store.reader()

    def _look(index: int) -> _Seen:
        place = store.place(index)
        try:
            if read is None:
                image, label = Path(store.paths[index]), store.labels[index]
            else:
                image, label = (part.numpy() for part in read(index))
            facts = facts_of(image) if isinstance(image, np.ndarray) else inspect(image)
        except (Unreadable, OSError) as error:
            return _Seen(place, trouble=str(error))
        return _Seen(place, facts, collections.Counter({int(label): 1}))

    return _look


def _dense_looker(split: DenseSplit) -> Callable[[int], _Seen]:
    return functools.partial(_look_dense, split)


def _look_dense(split, index):
    seen = _Seen(split.place(index))
    try:
        if split.in_memory:
            seen.facts = facts_of(split.image(index))
        else:
            seen.facts = inspect(Path(seen.place))
            split.image(index)  # of the size that is stated
        annotation = split.annotation(index)
        if isinstance(annotation, Objects):
            seen.classes.update(annotation.classes.tolist())
            for k in range(len(annotation)):
                annotation.draw(k)
        else:
            counts = np.bincount(annotation.ravel(), minlength=VOID + 1)[:VOID]
            seen.classes.update({k: int(n) for k, n in enumerate(counts) if n})
    except (Unreadable, OSError) as error:
        seen.trouble = str(error)
    return seen


def _stops(source, findings):
    for name, found in findings.items():
        if found.unreadable:
            count = len(found.unreadable)
            yield (
                f"{count:,} of {found.images:,} images of {name} cannot be used (or "
                f"pass --on-corrupt skip): {some(found.unreadable)}"
            )
    if isinstance(source, Source):
        for name, found in findings.items():
            empty = [
                n for k, n in enumerate(source.class_names) if not found.classes[k]
            ]
            if empty:
                yield f"no image of a class can be read in {name}: {some(empty)}"


def _doubts(splits, findings):
    for split in splits.values():
        yield from getattr(split, "doubts", list)()
    (first, ours), *others = findings.items()
    for second, theirs in others:
        shared = sorted(ours.contents.keys() & theirs.contents.keys())
        if shared:
            pairs = [f"{ours.contents[d]} and {theirs.contents[d]}" for d in shared]
            yield (
                f"{len(shared):,} pictures lie in {first} and in {second}, so that a "
                f"score says too much: {some(pairs)}"
            )


def _by(size: Sequence[Any]) -> str:
    return "x".join(map(str, size))
