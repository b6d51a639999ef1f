"""Image folders, the embedded digits and TensorFlow Datasets, listed and loaded."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from image_folders import DAMAGES, damage, truncate, write_folder, write_image
from PIL import Image

from kmlp.data import named
from kmlp.data.sources import open_source
from kmlp.errors import InputError, KmlpError
from kmlp.recipes import ClassificationRecipe as Recipe
from kmlp.training.input import in_memory
from kmlp.training.input.in_memory import load
from kmlp.training.input.pipeline import square

SIZE = 16
RECIPE = Recipe(
    name="test", batch_size=4, learning_rate=1.0, image_size=SIZE, crop="shift"
)


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
    with pytest.raises(KmlpError) as stopped:
        open_source(root)
    assert words in str(stopped.value)
    assert "Received: " in str(stopped.value)
    assert str(root) in str(stopped.value)
    assert isinstance(stopped.value, InputError)


@pytest.mark.parametrize("validation", ["val", "validation", "test"])
@pytest.mark.parametrize("home", ["", "inner"])
def test_folder(validation, home, tmp_path):
    root = write_folder(tmp_path / home, splits=("train", validation))
    (root / "train/cat/notes.txt").write_text("no image")
    source = open_source(str(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert source.small
    assert source.flip
    assert (source.train.count, source.validation.count) == (6, 6)
    np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 1, 1, 1])
    loaded = load(source, RECIPE)
    assert loaded.train.store.images.shape == (6, SIZE, SIZE, 3)
    np.testing.assert_array_equal(loaded.train.labels, [0, 0, 0, 1, 1, 1])
    assert loaded.skipped == ()


def test_numbers_are_sorted_as_numbers(tmp_path):
    names = [str(number) for number in range(12)]
    write_folder(tmp_path, classes=names, count=1)
    assert open_source(tmp_path).class_names == tuple(names)
    write_folder(tmp_path, classes=["x"], count=1)
    assert open_source(tmp_path).class_names == (*sorted(names), "x")


def test_large_images_are_not_small(tmp_path):
    root = write_folder(tmp_path)
    truncate(root / "train/cat/0.jpg")
    assert open_source(root).small
    write_image(root / "train/dog/2.jpg", size=(20, 65))
    assert not open_source(root).small


@pytest.mark.parametrize("crop", ["shift", "resized"])
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("reason", DAMAGES)
def test_corrupt_image(reason, split, crop, tmp_path, capsys):
    folder = write_folder(tmp_path / "images")
    path = damage(folder / split / "dog", reason)
    recipe = dataclasses.replace(RECIPE, crop=crop)
    with pytest.raises(KmlpError) as stopped:
        load(open_source(folder), recipe)
    assert f"{path} ({reason})" in str(stopped.value)
    source = load(open_source(folder, on_corrupt="skip"), recipe)
    assert source.skipped == (str(path),)
    assert f"Skipped 1 image: {path} ({reason})" in capsys.readouterr().out
    assert source.train.count == source.validation.count == 6


def test_many_corrupt_images_are_counted(tmp_path):
    root = write_folder(tmp_path / "images", count=6)
    for index in range(5):
        truncate(root / f"train/cat/{index}.jpg")
    with pytest.raises(KmlpError, match="5 images cannot be decoded") as stopped:
        load(open_source(root), RECIPE)
    assert "and 2 more" in str(stopped.value)


def test_class_of_corrupt_images(tmp_path):
    root = write_folder(tmp_path / "images", count=1)
    truncate(root / "val/dog/0.jpg")
    with pytest.raises(KmlpError, match="No image of a class") as stopped:
        load(open_source(root, on_corrupt="skip"), RECIPE)
    assert str(root / "val/dog") in str(stopped.value)


def test_vanished_image(tmp_path):
    root = write_folder(tmp_path / "images")
    source = open_source(root)
    (root / "train/cat/1.jpg").unlink()
    with pytest.raises(
        KmlpError, match=r"train/cat/1.jpg \(No such file or directory\)"
    ):
        load(source, RECIPE)


def test_what_is_kept(tmp_path, monkeypatch):
    """Decoded windows of small images, encoded large ones, or files."""
    source = open_source(write_folder(tmp_path / "images"))
    files = [Path(path).read_bytes() for path in source.train.store.paths]
    windows = load(source, RECIPE).train.store.images
    for window, file in zip(windows, files, strict=True):
        expected = square(tf.constant(file), SIZE, RECIPE.interpolation)
        np.testing.assert_array_equal(window, expected)
    recipe = dataclasses.replace(RECIPE, crop="resized")
    assert load(source, recipe).train.store.images.numpy().tolist() == files
    used = sum(map(len, files))
    monkeypatch.setattr(in_memory, "allowance", lambda: 2.5 * used)
    encoded = load(source, dataclasses.replace(RECIPE, image_size=1000))
    assert encoded.train.store.images.numpy().tolist() == files
    monkeypatch.setattr(in_memory, "allowance", lambda: used)
    assert load(source, RECIPE) is source


def test_digits_are_split_by_class():
    source = open_source(None)
    assert source.small
    assert not source.flip
    assert (source.train.count, source.validation.count) == (1437, 360)
    counts = np.bincount(source.validation.labels)
    assert counts.min() >= 34
    assert counts.max() <= 38
    images = load(source, RECIPE).train.store.images
    assert images.shape == (1437, SIZE, SIZE, 3)
    normal = (np.asarray(images) / 255 - source.mean) / source.std
    assert abs(normal.mean()) < 0.01
    assert 0.8 < normal.std() < 1.1


def jpeg(number):
    contents = io.BytesIO()
    Image.new("RGB", (30 + number, 20), (number, 0, 0)).save(contents, "JPEG")
    return contents.getvalue()


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    """A folder of TensorFlow Datasets with a set of numbered images."""
    with tfds.core.registered.skip_registration():

        class NumberedImages(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "number": tfds.features.Scalar(tf.int64),
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=["even", "odd"]),
                }
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, manager):
                return {"train": self.numbered(30), "test": self.numbered(7)}

            def numbered(self, count):
                for number in range(count):
                    yield (
                        number,
                        {
                            "number": number,
                            "image": io.BytesIO(jpeg(number)),
                            "label": number % 2,
                        },
                    )

            def _generate_examples(self):
                raise NotImplementedError

    folder = tmp_path_factory.mktemp(request.param)
    builder = NumberedImages(data_dir=folder, file_format=request.param)
    builder.download_and_prepare()
    return folder


def test_named_set(prepared):
    source = open_source("tfds:numbered_images", data_dir=prepared)
    assert source.class_names == ("even", "odd")
    assert (source.train.count, source.validation.count) == (30, 7)
    assert source.mean is None
    assert source.small
    expected = {jpeg(number): number % 2 for number in range(30)}
    read = source.train.store.reader()
    found = [read(tf.constant(index, tf.int64)) for index in range(30)]
    assert {image.numpy(): int(label) for image, label in found} == expected
    loaded = load(source, dataclasses.replace(RECIPE, crop="resized")).train.store
    assert dict(zip(loaded.images.numpy(), loaded.labels, strict=True)) == expected


def test_parts_of_a_named_set(prepared, monkeypatch):
    parts = named.Known(train="train[10:20]+test", validation="train[20:]")
    monkeypatch.setitem(named.KNOWN, "numbered_images", parts)
    source = open_source("tfds:numbered_images", data_dir=prepared)
    builder = tfds.builder("numbered_images", data_dir=prepared)
    for split, name in ((source.train, parts.train), (source.validation, "train[20:]")):
        if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
            rows = builder.as_data_source(name)
        else:
            rows = tfds.as_numpy(builder.as_dataset(name))
        expected = [jpeg(int(row["number"])) for row in rows]
        read = split.store.reader()
        found = [read(tf.constant(i, tf.int64))[0].numpy() for i in range(split.count)]
        assert sorted(found) == sorted(expected)


# Name -> words of the message.
BAD_SETS = {
    "imagenet2012": "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
    "https://image-net.org/download.php into FOLDER/downloads/manual, then give the "
    "same command with --download",
    "cifar100": "'FOLDER/cifar100/3.0.2': give the same command with --download",
    "cifar1OO": "did you mean cifar10 or cifar100",
    "cifar10:9.9.9": "cannot be loaded at version 9.9.9",
    "cars196/old": "config",
    "ag_news_subset": "this has label, title, description",
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_bad_named_set(name, tmp_path):
    with pytest.raises(KmlpError) as stopped:
        open_source(f"tfds:{name}", data_dir=tmp_path)
    assert BAD_SETS[name].replace("FOLDER", str(tmp_path)) in str(stopped.value)
    assert "Received: " in str(stopped.value)
    assert not list(tmp_path.iterdir())


def test_download_that_lacks_what_is_fetched_by_hand(tmp_path):
    with pytest.raises(KmlpError, match="downloads/manual"):
        open_source("tfds:imagenet2012", data_dir=tmp_path, download=True)
