"""Pictures and class maps in files of their own: ADE20K and Cityscapes."""

import contextlib
import csv
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from kmlp.console import some
from kmlp.data.dense.source import VOID, DenseSource, DenseSplit, palette
from kmlp.data.image_files import SUFFIXES, ignored_in_words, list_images
from kmlp.data.images import check_folder
from kmlp.data.pictures import Unreadable, image_size, read_image, read_map
from kmlp.errors import InputError

# A number that a map must not hold.
UNKNOWN = 254


def numbering(classes: Mapping[int, int]) -> np.ndarray:
    """Return a table from the numbers in files to the numbers of classes.

    Args:
        classes: Classes as `{number in files: number of the class, or VOID}`.

    Returns:
        Table `(256,)`, uint8; numbers that are not in `classes` are `UNKNOWN`.
    """
    table = np.full(256, UNKNOWN, "uint8")
    for number, target in classes.items():
        table[number] = target
    return table


ADE20K_LAYOUT = (
    "--data ade20k:DIR takes a folder with images in images/training and "
    "images/validation and maps of the same names, annotations/training/*.png and "
    "annotations/validation/*.png"
)
# The folder that the archive holds.
INNER = "ADEChallengeData2016"
_CLASSES = Path(__file__).parent / "classes"
# 0 in the files is what belongs to none of the classes.
NUMBERS = numbering({0: VOID} | {number: number - 1 for number in range(1, 151)})

CITYSCAPES_LAYOUT = (
    "--data cityscapes:DIR takes a folder with leftImg8bit/{train,val}/CITY/"
    "*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png or "
    "*_gtFine_labelIds.png"
)
# Name, number in labelIds, official colour; the order is that of trainIds.
with open(_CLASSES / "cityscapes.csv", encoding="utf-8", newline="") as _table:
    _, *_ROWS = csv.reader(_table)
_IMAGE = "_leftImg8bit.png"
_TRAIN_IDS, _LABEL_IDS = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_LAST_ID = 33
TRAIN_IDS = numbering({VOID: VOID} | {n: n for n in range(len(_ROWS))})
LABEL_IDS = numbering(
    {number: VOID for number in range(_LAST_ID + 1)}
    | {VOID: VOID}  # the licence plate, -1
    | {int(row[1]): index for index, row in enumerate(_ROWS)}
)


class MapSplit(DenseSplit):
    """Pictures and their class maps.

    Args:
        name: Name for people.
        images, maps: Paths, of the same length.
        table: Function of a map's path to its `numbering`.
        on_corrupt: What to do with damaged files, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.
    """

    def __init__(
        self,
        name: str,
        images: Sequence[Path],
        maps: Sequence[Path],
        table: Callable[[Path], np.ndarray],
        on_corrupt: str = "stop",
        upright: bool = False,
    ):
        self.name, self.images, self.maps = name, images, maps
        self.on_corrupt, self.upright = on_corrupt, upright
        self.count = len(images)
        self._table = table

    @functools.cached_property
    def size(self) -> tuple[int, int] | None:
        """Return the one height and width in all pictures' headers, or `None`."""
        sizes: set[tuple[int, int]] = set()
        for path in self.images:
            # A damaged picture is met when it is read.
            with contextlib.suppress(Unreadable):
                sizes.add(image_size(path, self.upright))
            if len(sizes) > 1:
                return None
        return sizes.pop() if sizes else None

    def image(self, index: int) -> np.ndarray:
        return read_image(self.images[index], self.upright)

    def annotation(self, index: int) -> np.ndarray:
        path = self.maps[index]
        numbers = read_map(path)
        shown = self.image_size(index)
        if numbers.shape != shown:
            raise Unreadable(
                path,
                f"a map of {numbers.shape[0]} x {numbers.shape[1]} for an image of "
                f"{shown[0]} x {shown[1]}",
            )
        if numbers.dtype != np.uint8:
            if numbers.min() < 0 or numbers.max() > VOID:
                raise Unreadable(path, f"number {numbers.max()} of no class")
            numbers = numbers.astype("uint8")
        found = self._table(path)[numbers]
        if (found == UNKNOWN).any():
            wrong = numbers[found == UNKNOWN][0]
            raise Unreadable(path, f"number {wrong} of no class")
        return found

    def image_size(self, index: int) -> tuple[int, int]:
        return image_size(self.images[index], self.upright)

    def place(self, index: int) -> str:
        return str(self.images[index])

    def image_id(self, index: int) -> str:
        return self.images[index].stem


def ade20k(
    folder: Path, on_corrupt: str = "stop", upright: bool = False
) -> DenseSource:
    """List ADE20K of the scene parsing challenge of 2016, without reading it.

    Args:
        folder: Folder of the data set, or the one that holds it.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.

    Raises:
        InputError: If there is no such folder, or none in this layout.
    """
    if (folder / INNER).is_dir():
        folder = folder / INNER

    notes: list[str] = []

    def split(name: str) -> MapSplit:
        parts = [f"images/{name}", f"annotations/{name}"]
        home, truth = _homes(folder, parts, ADE20K_LAYOUT)
        shown, listed = _named(home, [""], notes), _named(truth, [""], notes, (".png",))
        images, maps = _paired(shown, listed, ADE20K_LAYOUT, folder, notes)
        numbers = _ade20k_numbers
        return MapSplit(str(home), images, maps, numbers, on_corrupt, upright)

    names = tuple((_CLASSES / "ade20k.txt").read_text(encoding="utf-8").splitlines())
    return DenseSource(
        name=f"ade20k:{folder}",
        task="segmentation",
        class_names=names,
        train=split("training"),
        validation=split("validation"),
        palette=palette(len(names)),
        notes=tuple(notes),
    )


def cityscapes(
    folder: Path, on_corrupt: str = "stop", upright: bool = False
) -> DenseSource:
    """List Cityscapes with the 19 classes that are scored, without reading it.

    Args:
        folder: Folder of the data set.
        on_corrupt: What to do where pictures cannot be read, `"stop"` or `"skip"`.
        upright: Whether JPEGs are turned as their EXIF states.

    Raises:
        InputError: If there is no such folder, or none in this layout.
    """

    notes: list[str] = []

    def split(name: str) -> MapSplit:
        parts = [f"leftImg8bit/{name}", f"gtFine/{name}"]
        home, truth = _homes(folder, parts, CITYSCAPES_LAYOUT)
        shown = _named(home, [_IMAGE], notes)
        # Polygons and maps of instances lie there too; of two maps the latter counts.
        listed = _named(truth, [_LABEL_IDS, _TRAIN_IDS])
        images, maps = _paired(shown, listed, CITYSCAPES_LAYOUT, folder, notes)
        numbers = _cityscapes_numbers
        return MapSplit(str(home), images, maps, numbers, on_corrupt, upright)

    return DenseSource(
        name=f"cityscapes:{folder}",
        task="segmentation",
        class_names=tuple(row[0] for row in _ROWS),
        train=split("train"),
        validation=split("val"),
        palette=np.array([row[2:] for row in _ROWS], int).astype("uint8"),
        notes=tuple(notes),
    )


def _ade20k_numbers(path):
    return NUMBERS


def _cityscapes_numbers(path):
    return TRAIN_IDS if path.name.endswith(_TRAIN_IDS) else LABEL_IDS


def _named(home, endings, notes=None, suffixes=SUFFIXES):
    """Return `{path without its ending: path}` of the files of a folder.

    Args:
        home: Folder.
        endings: Ends of names, in any case, the last of which counts most; `""`: the
            suffix alone.
        notes: List to which a line on other files is added, or `None`.
        suffixes: Suffixes of the files.

    Raises:
        InputError: If two files differ by nothing but their suffix.
    """
    listing, found = list_images(home, suffixes), {}
    others = listing.ignored
    for ending in endings:
        for path in map(Path, listing.paths):
            name = path.relative_to(home).as_posix()
            if not name.lower().endswith(ending.lower()):
                others[f"not named *{ending}"] += 1
                continue
            stem = name[: -len(ending)] if ending else name[: -len(path.suffix)]
            if not ending and stem in found:
                raise InputError(
                    "Two files differ by their suffix alone, and one map belongs to "
                    f"each: remove one. Received: {str(found[stem])!r}, {str(path)!r}"
                )
            found[stem] = path
    if notes is not None and others:
        notes.append(f"{home}: {ignored_in_words(others)}")
    return found


def _homes(folder, parts, layout):
    """Return the folders within a folder that must be there."""
    check_folder(folder, layout)
    for part in parts:
        if not (folder / part).is_dir():
            raise InputError(f"{layout}; there is no {part}. Received: {str(folder)!r}")
    return [folder / part for part in parts]


def _paired(images, maps, layout, folder, notes):
    """Return the paths of images and of their maps, both sorted by name.

    Args:
        images, maps: Files as `{name: path}`.
        layout: Beginning of a message.
        folder: Folder that was asked for.
        notes: List to which a line on maps without an image is added.
    """
    if not images:
        raise InputError(f"{layout}; there are no images. Received: {str(folder)!r}")
    missing = images.keys() - maps.keys()
    if missing:
        raise InputError(
            f"{layout}; {len(missing):,} of {len(images):,} images have no map: "
            f"{some(missing)}. Received: {str(folder)!r}"
        )
    if alone := maps.keys() - images.keys():
        notes.append(
            f"{len(alone):,} of {len(maps):,} maps have no image: {some(alone)}"
        )
    names = sorted(images)
    return [images[name] for name in names], [maps[name] for name in names]
