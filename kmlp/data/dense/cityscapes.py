"""Cityscapes: the 19 classes that are scored."""

import numpy as np

from kmlp.data.dense.class_maps import MapSplit, check_layout, numbering, paired
from kmlp.data.dense.source import VOID, DenseSource

LAYOUT = (
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
        check_layout(folder, parts, LAYOUT)
        home, truth = (folder / part for part in parts)
        images = _named(home, _IMAGE)
        maps = _named(truth, _LABEL_IDS) | _named(truth, _TRAIN_IDS)
        pairs = paired(images, maps, LAYOUT, folder)
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
