"""ADE20K and Cityscapes: their numbers become ours, and what is refused."""

import numpy as np
import pytest
from dense_folders import write_ade20k, write_cityscapes, write_map, write_picture
from PIL import Image

from kmlp.data.dense import Unreadable, open_dense
from kmlp.errors import KmlpError

OPEN = {
    "ade20k": lambda root: open_dense(f"ade20k:{root}", "segmentation"),
    "cityscapes": lambda root: open_dense(f"cityscapes:{root}", "segmentation"),
}


def test_ade20k(tmp_path):
    source = OPEN["ade20k"](write_ade20k(tmp_path))
    found = source.train.annotation(1)
    numbers = np.arange(40 * 56).reshape(40, 56) % 151
    np.testing.assert_array_equal(found, np.where(numbers, numbers - 1, 255))
    assert found.dtype == np.uint8
    assert source.train.image(1).shape == (40, 56, 3)
    assert source.train.size is None  # they differ
    assert len(set(source.class_names)) == len(source.palette) == 150
    assert source.class_names[:3] == ("wall", "building", "sky")
    assert source.class_names[149] == "flag"


def test_the_archives_own_folder_is_found(tmp_path):
    write_ade20k(tmp_path / "ADEChallengeData2016")
    assert OPEN["ade20k"](tmp_path).train.count == 2


@pytest.mark.parametrize("ending", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path, ending):
    source = OPEN["cityscapes"](write_cityscapes(tmp_path, ending))
    found = source.train.annotation(0).ravel()[:34].tolist()
    if ending == "labelTrainIds":
        assert found == list(range(19)) + [255] * 15
    else:  # of the data set's own table of labels
        scored = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28]
        scored += [31, 32, 33]
        expected = [scored.index(n) if n in scored else 255 for n in range(34)]
        assert found == expected
    assert source.train.count == 2
    assert source.train.size == (32, 64)
    assert source.class_names[0] == "road"
    assert source.palette[[0, 18]].tolist() == [[128, 64, 128], [119, 11, 32]]


def test_train_ids_are_preferred(tmp_path):
    write_cityscapes(tmp_path)
    source = OPEN["cityscapes"](write_cityscapes(tmp_path, "labelTrainIds"))
    assert source.train.annotation(0)[0, 0] == 0  # 255 by the other file


@pytest.mark.parametrize(
    ("kind", "write", "gone", "words"),
    [
        ("ade20k", write_ade20k, "images/validation", "no images/validation"),
        ("ade20k", write_ade20k, "annotations/training", "no annotations/training"),
        ("cityscapes", write_cityscapes, "gtFine/val", "no gtFine/val"),
        ("cityscapes", write_cityscapes, "leftImg8bit", "no leftImg8bit/train"),
    ],
)
def test_missing_folders(tmp_path, kind, write, gone, words):
    write(tmp_path)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(KmlpError, match=words):
        OPEN[kind](tmp_path)


@pytest.mark.parametrize("kind", OPEN)
def test_no_folder_at_all(tmp_path, kind):
    with pytest.raises(KmlpError, match="this does not exist"):
        OPEN[kind](tmp_path / "gone")


def test_images_without_maps_and_folders_without_images(tmp_path):
    write_ade20k(tmp_path)
    for path in (tmp_path / "annotations/training").iterdir():
        path.unlink()
        break
    with pytest.raises(
        KmlpError, match="1 of 2 images have no map: ADE_training_0000000"
    ):
        OPEN["ade20k"](tmp_path)
    for path in (tmp_path / "images/training").iterdir():
        path.unlink()
    with pytest.raises(KmlpError, match="there are no images"):
        OPEN["ade20k"](tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: write_map(path, np.zeros((9, 9))), "9 x 9 for an image of 48 x"),
        (lambda path: write_map(path, np.full((48, 64), 200)), "number 200 of no"),
        (lambda path: write_picture(path), "in colour"),
        (lambda path: path.write_bytes(b""), "empty"),
        (
            lambda path: Image.fromarray(np.full((48, 64), 999, "uint16")).save(path),
            "number 999 of no class",
        ),
    ],
)
def test_maps_that_cannot_be_used(tmp_path, spoil, words):
    source = OPEN["ade20k"](write_ade20k(tmp_path))
    spoil(source.train.maps[0])
    with pytest.raises(Unreadable, match=words):
        source.train.annotation(0)


def test_a_map_with_a_palette_gives_its_numbers(tmp_path):
    source = OPEN["ade20k"](write_ade20k(tmp_path))
    picture = Image.fromarray(np.full((48, 64), 5, "uint8"))
    picture.putpalette([255 - n // 3 for n in range(768)])
    picture.save(source.train.maps[0])
    assert (source.train.annotation(0) == 4).all()
