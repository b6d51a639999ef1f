"""ADE20K as the scene parsing challenge of 2016 has it: 150 classes."""

from pathlib import Path

from kmlp.data.dense.class_maps import MapSplit, check_layout, numbering, paired
from kmlp.data.dense.palettes import palette
from kmlp.data.dense.source import VOID, DenseSource

LAYOUT = (
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
        check_layout(folder, parts, LAYOUT)
        images = {path.stem: path for path in (folder / parts[0]).glob("*.jpg")}
        maps = {path.stem: path for path in (folder / parts[1]).glob("*.png")}
        pairs = paired(images, maps, LAYOUT, folder)
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
