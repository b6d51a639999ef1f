"""Pictures and class maps in files of their own: ADE20K and Cityscapes."""

from pathlib import Path

import numpy as np

from kmlp.console import some
from kmlp.data.dense.source import (
    VOID,
    DenseSource,
    DenseSplit,
    Unreadable,
    image_size,
    palette,
    read_image,
    read_map,
)
from kmlp.data.images import check_folder
from kmlp.errors import InputError

# A number that a map must not hold.
UNKNOWN = 254


def numbering(classes):
    """A table from the numbers in files to the numbers of classes.

    Args:
        classes: `{number in files: number of the class, or VOID}`.

    Returns:
        `(256,)` uint8; numbers that are not in `classes` are `UNKNOWN`.
    """
    table = np.full(256, UNKNOWN, "uint8")
    for number, target in classes.items():
        table[number] = target
    return table


class MapSplit(DenseSplit):
    """Pictures and their class maps.

    Args:
        name: for people.
        images, maps: paths, of the same length.
        table: of `numbering`; one, or a function of a map's path to one.
        on_corrupt: `"stop"` or `"skip"`.
    """

    def __init__(self, name, images, maps, table, on_corrupt="stop"):
        self.name, self.images, self.maps = name, images, maps
        self.on_corrupt = on_corrupt
        self.count = len(images)
        self._table = table if callable(table) else lambda path: table
        self._size = ()

    @property
    def size(self):
        """Height and width that all pictures have by their headers, or `None`."""
        if self._size == ():
            self._size = self._common()
        return self._size

    def image(self, index):
        return read_image(self.images[index])

    def annotation(self, index):
        path = self.maps[index]
        numbers = read_map(path)
        shown = image_size(self.images[index])
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

    def image_size(self, index):
        return image_size(self.images[index])

    def place(self, index):
        return str(self.images[index])

    def image_id(self, index):
        return self.images[index].stem

    def _common(self):
        sizes = set()
        for path in self.images:
            try:
                sizes.add(image_size(path))
            except Unreadable:
                continue  # said, or skipped, when it is read
            if len(sizes) > 1:
                return None
        return sizes.pop() if sizes else None


def check_layout(folder, parts, layout):
    """Refuses a folder without folders that it must have.

    Args:
        folder: `pathlib.Path`.
        parts: of folders within it.
        layout: what is expected, for people.

    Raises:
        InputError: one is missing.
    """
    check_folder(folder, layout)
    for part in parts:
        if not (folder / part).is_dir():
            raise InputError(f"{layout}; there is no {part}. Received: {str(folder)!r}")


def paired(images, maps, layout, folder):
    """Paths of maps in the order of the images.

    Args:
        images: `{name: path}`.
        maps: the same.
        layout: what is expected, for people.
        folder: that was asked for.

    Returns:
        `(images, maps)`: lists of paths, sorted by name.

    Raises:
        InputError: no image, or one without a map.
    """
    if not images:
        raise InputError(f"{layout}; there are no images. Received: {str(folder)!r}")
    missing = images.keys() - maps.keys()
    if missing:
        raise InputError(
            f"{layout}; {len(missing):,} of {len(images):,} images have no map: "
            f"{some(missing)}. Received: {str(folder)!r}"
        )
    names = sorted(images)
    return [images[name] for name in names], [maps[name] for name in names]


ADE20K_LAYOUT = (
    "--data ade20k:DIR takes a folder with images/training/*.jpg, images/validation/"
    "*.jpg and maps of the same names, annotations/training/*.png and "
    "annotations/validation/*.png"
)
# The folder that the archive holds.
INNER = "ADEChallengeData2016"
NAMES = Path(__file__).parent / "classes" / "ade20k.txt"
# 0 in the files is what belongs to none of the classes.
NUMBERS = {0: VOID} | {number: number - 1 for number in range(1, 151)}


def ade20k(folder, on_corrupt="stop"):
    """A folder of ADE20K, listed but not read, as a `DenseSource`.

    Args:
        folder: `pathlib.Path`.
        on_corrupt: `"stop"` or `"skip"` where pictures cannot be read.

    Raises:
        InputError: no such folder, or not in this layout.
    """
    if (folder / INNER).is_dir():
        folder = folder / INNER
    table = numbering(NUMBERS)
    splits = []
    for name in ("training", "validation"):
        parts = [f"images/{name}", f"annotations/{name}"]
        check_layout(folder, parts, ADE20K_LAYOUT)
        images = {path.stem: path for path in (folder / parts[0]).glob("*.jpg")}
        maps = {path.stem: path for path in (folder / parts[1]).glob("*.png")}
        pairs = paired(images, maps, ADE20K_LAYOUT, folder)
        splits.append(MapSplit(str(folder / parts[0]), *pairs, table, on_corrupt))
    names = tuple(NAMES.read_text(encoding="utf-8").splitlines())
    return DenseSource(
        name=f"ade20k:{folder}",
        task="segmentation",
        class_names=names,
        train=splits[0],
        validation=splits[1],
        palette=palette(len(names)),
    )


CITYSCAPES_LAYOUT = (
    "--data cityscapes:DIR takes a folder with leftImg8bit/{train,val}/CITY/"
    "*_leftImg8bit.png and gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png or "
    "*_gtFine_labelIds.png"
)
# Name, number in labelIds, official colour; the order is that of trainIds.
CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_IMAGE = "_leftImg8bit.png"
_TRAIN_IDS, _LABEL_IDS = "_gtFine_labelTrainIds.png", "_gtFine_labelIds.png"
_LAST_ID = 33
TRAIN_IDS = numbering({VOID: VOID} | {n: n for n in range(len(CLASSES))})
LABEL_IDS = numbering(
    {number: VOID for number in range(_LAST_ID + 1)}
    | {VOID: VOID}  # the licence plate, -1
    | {number: index for index, (_, number, _) in enumerate(CLASSES)}
)


def cityscapes(folder, on_corrupt="stop"):
    """A folder of Cityscapes, listed but not read, as a `DenseSource`.

    Args:
        folder: `pathlib.Path`.
        on_corrupt: `"stop"` or `"skip"` where pictures cannot be read.

    Raises:
        InputError: no such folder, or not in this layout.
    """
    splits = []
    for name in ("train", "val"):
        parts = [f"leftImg8bit/{name}", f"gtFine/{name}"]
        check_layout(folder, parts, CITYSCAPES_LAYOUT)
        home, truth = (folder / part for part in parts)
        images = _named(home, _IMAGE)
        maps = _named(truth, _LABEL_IDS) | _named(truth, _TRAIN_IDS)
        pairs = paired(images, maps, CITYSCAPES_LAYOUT, folder)
        splits.append(MapSplit(str(home), *pairs, _table, on_corrupt))
    return DenseSource(
        name=f"cityscapes:{folder}",
        task="segmentation",
        class_names=tuple(name for name, _, _ in CLASSES),
        train=splits[0],
        validation=splits[1],
        palette=np.array([colour for _, _, colour in CLASSES], "uint8"),
    )


def _table(path):
    return TRAIN_IDS if path.name.endswith(_TRAIN_IDS) else LABEL_IDS


def _named(home, ending):
    """`{city/name: path}` of the files of an ending."""
    return {
        f"{path.parent.name}/{path.name.removesuffix(ending)}": path
        for path in home.glob(f"*/*{ending}")
    }
