"""Image folders, the embedded digits, and the batches made of them."""

import numpy as np
import pytest
from image_folders import DAMAGES, damage, truncate, write_folder, write_image

from training import data, folders
from training.console import Stop
from training.digits import Digits

SIZE = 16


# Case -> (what is done to a good folder, words of the message).
BAD_FOLDERS = {
    "missing": (lambda root: root.rename(root / "../gone"), "does not exist"),
    "file": (
        lambda root: (root.rename(root / "../gone"), root.write_text("")),
        "is a file",
    ),
    "empty": (lambda root: remove(root), "this is empty"),
    "no train": (lambda root: (root / "train").rename(root / "learn"), "no train"),
    "no validation": (lambda root: remove(root / "val"), "only train"),
    "other classes": (
        lambda root: (root / "val/dog").rename(root / "val/fox"),
        "only in train: dog; only in val: fox",
    ),
    "a class more": (lambda root: write_image(root / "val/fox/0.png"), "fox"),
    "one class": (
        lambda root: (remove(root / "train/dog"), remove(root / "val/dog")),
        "two at least",
    ),
    "no class": (lambda root: remove(root / "train"), "two at least"),
    "empty class": (
        lambda root: [path.unlink() for path in (root / "train/dog").iterdir()],
        "without images",
    ),
}


def remove(folder):
    """Leaves the folder itself, unless it is a split or a class."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    if folder.name in ("val", "dog"):
        folder.rmdir()


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folder(case, tmp_path):
    spoil, words = BAD_FOLDERS[case]
    root = write_folder(tmp_path / "images", count=1)
    spoil(root)
    with pytest.raises(Stop) as stopped:
        folders.ImageFolder(root)
    assert words in str(stopped.value)
    assert "Received: " in str(stopped.value)
    assert str(root) in str(stopped.value)
    assert stopped.value.code == 2


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test")])
@pytest.mark.parametrize("home", ["", "inner"])
def test_folder(splits, home, tmp_path):
    root = write_folder(tmp_path / home, splits=splits)
    (root / "train/cat/notes.txt").write_text("no image")
    source = folders.ImageFolder(tmp_path)
    assert source.class_names == ("cat", "dog")
    images = source.load(SIZE, "stop")
    assert images.train.images.shape == (6, SIZE, SIZE, 3)
    np.testing.assert_array_equal(images.train.labels, [0, 0, 0, 1, 1, 1])
    assert images.skipped == ()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("reason", DAMAGES)
def test_corrupt_image(reason, split, tmp_path, capsys):
    source = write_folder(tmp_path / "images")
    path = damage(source / split / "dog", reason)
    source = folders.ImageFolder(source)
    with pytest.raises(Stop) as stopped:
        source.load(SIZE, "stop")
    assert f"{path} ({reason})" in str(stopped.value)
    images = source.load(SIZE, "skip")
    assert images.skipped == (str(path),)
    assert f"Skipped 1 image: {path} ({reason})" in capsys.readouterr().out
    assert len(images.train) == len(images.validation) == 6


def test_many_corrupt_images_are_counted(tmp_path):
    root = write_folder(tmp_path / "images", count=6)
    for index in range(5):
        truncate(root / f"train/cat/{index}.jpg")
    with pytest.raises(Stop, match="5 images cannot be decoded") as stopped:
        folders.ImageFolder(root).load(SIZE, "stop")
    assert "and 2 more" in str(stopped.value)


def test_class_of_corrupt_images(tmp_path):
    root = write_folder(tmp_path / "images", count=1)
    truncate(root / "val/dog/0.jpg")
    with pytest.raises(Stop, match="No image of a class") as stopped:
        folders.ImageFolder(root).load(SIZE, "skip")
    assert str(root / "val/dog") in str(stopped.value)


def test_files_give_the_images_of_memory(tmp_path, monkeypatch):
    source = folders.ImageFolder(write_folder(tmp_path / "images"))
    kept = source.load(SIZE, "stop")
    monkeypatch.setattr(folders, "fits_in_memory", lambda count, size: False)
    read = source.load(SIZE, "stop")
    assert read.train.images is None
    for batches in (
        lambda images: data.training_batches(images, 4, seed=1),
        lambda images: data.validation_batches(images, 4),
    ):
        for a, b in zip(batches(kept), batches(read), strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])


def test_gray_images_become_coloured(tmp_path):
    for name in ("gray.jpg", "gray.png"):
        write_image(tmp_path / name, channels=1)
        image = data.square((tmp_path / name).read_bytes(), SIZE).numpy()
        assert image.shape == (SIZE, SIZE, 3)
        assert np.ptp(image, axis=-1).max() == 0


@pytest.mark.parametrize("size", [SIZE, data.LARGEST_SHIFTED + 8])
def test_order_and_augmentation_follow_from_the_seed(size):
    images = Digits().load(size)

    def epochs(seed, count=2):
        batches = data.training_batches(images, 512, seed)
        return [[x.numpy() for x, _ in batches] for _ in range(count)]

    first, again, other = epochs(3), epochs(3), epochs(4)
    assert first[0][0].shape == (512, size, size, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_shift_moves_by_whole_pixels():
    image = np.random.default_rng(0).integers(1, 255, (1, SIZE, SIZE, 3), np.uint8)
    reach = int(SIZE * data.SHIFT)
    padded = np.pad(image[0], ((reach, reach), (reach, reach), (0, 0)))
    windows = [
        padded[top : top + SIZE, left : left + SIZE]
        for top in range(2 * reach + 1)
        for left in range(2 * reach + 1)
    ]
    windows += [window[:, ::-1] for window in windows]
    seen = set()
    for seed in range(40):
        shifted = data.augment(image, (seed, 0), SIZE, flip=True).numpy()[0]
        errors = [np.abs(shifted - window).max() for window in windows]
        assert min(errors) < 1e-2
        seen.add(int(np.argmin(errors)))
    assert len(seen) > 15


def test_digits_are_split_by_class():
    images = Digits().load(8)
    assert (len(images.train), len(images.validation)) == (1437, 360)
    counts = np.bincount(images.validation.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    batch = np.concatenate([x for x, _ in data.training_batches(images, 479, 0)])
    assert abs(batch.mean()) < 0.2
    assert 0.7 < batch.std() < 1.3
