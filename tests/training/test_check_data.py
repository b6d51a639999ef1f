"""`kmlp data check`: what a data set holds, and where training would stop."""

import json
import shutil

import numpy as np
import pytest
from dense_folders import (
    coco_content,
    write_ade20k,
    write_coco,
    write_map,
    write_picture,
)
from image_folders import write_folder, write_image
from PIL import Image

from kmlp.commands.main import main


def check(spec, tmp_path, capsys, *flags):
    """Exit code, lines and JSON."""
    file = tmp_path / "found.json"
    code = main(["data", "check", str(spec), "--json", str(file), *flags])
    printed = capsys.readouterr()
    return code, printed.out + printed.err, json.loads(file.read_text())


def test_images_by_class(tmp_path, capsys):
    root = write_folder(tmp_path / "data", count=3)
    write_image(root / "train/cat/large.png", size=(40, 30), seed=9, channels=1)
    shutil.copy(root / "train/cat/large.png", root / "val/dog/again.png")
    (root / "train/cat/notes.txt").write_text("")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.new("RGB", (24, 20), (9, 9, 200))
    upright.save(root / "train/dog/side.jpg", exif=exif.tobytes())
    code, said, found = check(root, tmp_path, capsys)
    assert code == 0
    assert found["stops"] == []
    train, validation = found["splits"]["train"], found["splits"]["validation"]
    assert train["images"] == {"cat": 4, "dog": 4}
    assert validation["images"] == {"cat": 3, "dog": 4}
    assert train["sizes"] == [[20, 24], [40, 30]]
    assert train["modes"] == {"RGB": 7, "L": 1}
    assert (train["turned_by_exif"], validation["turned_by_exif"]) == (1, 0)
    # The folder's images of one number are the same in both splits and classes.
    (doubt,) = found["doubts"]
    assert doubt.startswith("4 pictures lie in train and in validation")
    assert "ignored: 1 .txt" in said
    assert "8 images of 20x24 to 40x30" in said


def test_where_training_would_stop(tmp_path, capsys):
    root = write_folder(tmp_path / "data", count=1)
    (root / "val/dog/0.jpg").write_bytes(b"")
    code, said, found = check(root, tmp_path, capsys)
    assert code == 1
    assert len(found["stops"]) == 2
    assert "1 of 2 images of validation cannot be used" in found["stops"][0]
    assert "no image of a class can be read in validation: dog" in found["stops"][1]
    assert "Training would stop: 1 of 2" in said
    shutil.rmtree(root / "val")
    code, said, found = check(root, tmp_path, capsys)
    assert code == 1
    assert "Training would stop: --data takes a folder with train/CLASS" in said
    assert found["stops"]


def test_objects(tmp_path, capsys):
    content = coco_content()
    content["annotations"].append({**content["annotations"][0], "id": 99})
    content["annotations"].append(
        {**content["annotations"][2], "id": 100, "bbox": [20, 10, 20, 24]}
    )
    root = write_coco(tmp_path / "data", content)
    code, said, found = check(f"coco:{root}", tmp_path, capsys)
    assert code == 0
    assert found["splits"]["train"]["objects"] == {"car": 4, "brush": 2}
    assert found["splits"]["validation"]["objects"] == {"car": 5, "brush": 2}
    doubts = "\n".join(found["doubts"])
    assert "2 of 10 objects reach beyond their image" in doubts
    assert "1 of 10 objects stand there twice" in doubts
    assert "1 of 10 objects have a mask that is elsewhere" in doubts
    assert "2 objects have no area within the image" in doubts
    write_picture(root / "val2017/000000000001.jpg", (50, 64))
    code, said, found = check(f"coco:{root}", tmp_path, capsys)
    assert code == 1
    assert "50 x 64 pixels, and in the annotations 48 x 64" in said


def test_class_maps(tmp_path, capsys):
    root = write_ade20k(tmp_path / "data")
    write_map(root / "annotations/training/alone.png", np.ones((9, 9)))
    (root / "images/training/ADE_training_00000000.jpg").rename(
        root / "images/training/ADE_training_00000000.JPG"
    )
    code, said, found = check(f"ade20k:{root}", tmp_path, capsys)
    assert code == 0
    assert len(found["splits"]["train"]["pixels"]) == 150
    maps = np.concatenate([np.arange(h * w) % 151 for h, w in ((48, 64), (40, 56))])
    expected = np.bincount(maps, minlength=151)[1:].tolist()
    assert list(found["splits"]["train"]["pixels"].values()) == expected
    assert "1 of 3 maps have no image: alone" in said
    write_map(
        root / "annotations/training/ADE_training_00000001.png", np.full((40, 56), 200)
    )
    code, said, _ = check(f"ade20k:{root}", tmp_path, capsys)
    assert code == 1
    assert "number 200 of no class" in said


@pytest.mark.parametrize(
    "spec", ["digits", pytest.param("scenes", marks=pytest.mark.long)]
)
def test_what_lies_in_memory(spec, tmp_path, capsys):
    if spec == "scenes":
        pytest.importorskip("pycocotools")
    code, said, found = check(spec, tmp_path, capsys)
    assert code == 0
    assert found["splits"]["train"]["modes"]
    assert said.splitlines()[0].count("to train") == 1
