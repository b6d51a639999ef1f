"""Every kind of image file at every door: one accepted set, one result, Pillow's."""

import argparse
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from dense_folders import write_map
from PIL import Image, ImageOps
from serving.pictures import encoded, of_mode, picture

from kmlp.data import decode, pictures
from kmlp.data.dense import open_dense
from kmlp.data.image_files import SUFFIXES, images_of, list_images
from kmlp.data.reading import evaluation_batches
from kmlp.data.sources import open_evaluation, open_source
from kmlp.errors import InputError
from kmlp.export.serving_signatures import prepared
from kmlp.predicting.classifying import preparation
from kmlp.preprocessing import Preprocessing
from kmlp.serving.hostile import bmp
from kmlp.training.input.arrays import open_packed
from kmlp.training.job import check_results


def deep_png(channels, color_type, side=33):
    """A PNG of 16 bits per channel, which Pillow writes of grey alone."""
    values = np.random.default_rng(1).integers(0, 2**16, (side, side, channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, content):
        checksum = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", checksum)
        )

    header = struct.pack(">IIBBBBB", side, side, 16, color_type, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return png + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def upside_down(contents):
    """A BMP whose rows stand from the top down, by a negative height."""
    height = struct.unpack("<i", contents[22:26])[0]
    return contents[:22] + struct.pack("<i", -height) + contents[26:]


# Case -> bytes of what is taken.
GOOD = {
    "JPEG": of_mode("RGB", "JPEG"),
    "progressive JPEG": of_mode("RGB", "JPEG", progressive=True),
    "JPEG of full chroma": of_mode("RGB", "JPEG", subsampling=0),
    "JPEG of RGB": of_mode("RGB", "JPEG", keep_rgb=True),
    "grey JPEG": of_mode("L", "JPEG"),
    "CMYK JPEG": of_mode("CMYK", "JPEG"),
    "JPEG of two pictures": encoded(
        picture(50, 37), "MPO", save_all=True, append_images=[picture(50, 37, 1)]
    ),
    "PNG": of_mode("RGB", "PNG"),
    "grey PNG": of_mode("L", "PNG"),
    "bilevel PNG": of_mode("1", "PNG"),
    "palette PNG": of_mode("P", "PNG"),
    "palette PNG of 4 bits": encoded(picture(50, 37).quantize(9), "PNG", bits=4),
    "transparent PNG": of_mode("RGBA", "PNG"),
    "transparent palette PNG": of_mode("P", "PNG", transparency=3),
    "transparent grey PNG": of_mode("LA", "PNG"),
    "16-bit PNG": deep_png(3, 2),
    "16-bit grey PNG": deep_png(1, 0),
    "16-bit transparent PNG": deep_png(4, 6),
    "WebP": of_mode("RGB", "WEBP"),
    "lossless WebP": of_mode("RGB", "WEBP", lossless=True),
    "transparent WebP": of_mode("RGBA", "WEBP"),
    "transparent lossless WebP": of_mode("RGBA", "WEBP", lossless=True),
    "BMP": of_mode("RGB", "BMP"),
    "BMP of 32 bits": of_mode("RGBA", "BMP"),
    "palette BMP": of_mode("P", "BMP"),
    "palette BMP of few colours": encoded(picture(51, 37).quantize(9), "BMP"),
    "grey BMP": of_mode("L", "BMP"),
    "BMP from the top": upside_down(of_mode("RGB", "BMP")),
    "palette BMP from the top": upside_down(of_mode("P", "BMP")),
    **{
        f"one pixel, {kind}": of_mode("RGB", kind, (1, 1))
        for kind in ("JPEG", "PNG", "WEBP", "BMP")
    },
}
FRAMES = [picture(30, 20, seed) for seed in range(3)]
# Case -> (bytes of what is refused, why).
BAD = {
    "nothing": (b"", "empty"),
    "text": (b"not an image at all" * 9, "none of JPEG, PNG, WebP and BMP"),
    "TIFF": (of_mode("RGB", "TIFF"), "none of"),
    "GIF": (of_mode("P", "GIF"), "a GIF"),
    "animated WebP": (
        encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
        "an animated WebP",
    ),
    "bilevel BMP": (of_mode("1", "BMP"), "of 1 bits a pixel"),
    "BMP of 16 bits": (bmp(8, 8, bits=16), "of 16 bits a pixel"),
    "compressed BMP": (
        of_mode("P", "BMP")[:30] + b"\1" + of_mode("P", "BMP")[31:],
        "a compressed BMP",
    ),
    "JPEG cut short": (of_mode("RGB", "JPEG")[:-400], "truncated"),
    "PNG cut short": (of_mode("RGB", "PNG")[:-400], "truncated"),
    "WebP cut short": (of_mode("RGB", "WEBP")[:-100], "image"),
    "BMP cut short": (of_mode("RGB", "BMP")[:-400], "truncated"),
    "palette BMP cut short": (of_mode("P", "BMP")[:-400], "truncated"),
}
SIZE = 32
PREPARED = Preprocessing(
    mean=(0.0,) * 3,
    std=(1 / 255,) * 3,
    image_size=SIZE,
    test_crop=1.0,
    test_interpolation="bilinear",
)


def by_pillow(contents):
    image = Image.open(io.BytesIO(contents))
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image) >> 8).astype("uint8")[..., None], 3, -1)
    return np.asarray(image.convert("RGB"))


decoded = tf.function(
    decode.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)
upright = tf.function(
    lambda image: decode.decode(image, upright=True),
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
)


@pytest.mark.parametrize("case", GOOD)
def test_decoded_as_by_pillow(case, tmp_path):
    contents, path = GOOD[case], tmp_path / "image"
    path.write_bytes(contents)
    expected = by_pillow(contents)
    np.testing.assert_array_equal(decoded(contents), expected)
    np.testing.assert_array_equal(upright(contents), expected)
    np.testing.assert_array_equal(pictures.read_image(path), expected)
    assert pictures.image_size(path) == expected.shape[:2]
    assert pictures.fault(contents[: pictures.HEADER]) is None
    # The header, by which a server judges, tells the same size.
    one_pixel_less = expected.shape[0] * expected.shape[1] - 1
    with pytest.MonkeyPatch.context() as patch:
        decode.checked(tf.constant([contents]), "image")
        patch.setattr(decode, "LARGEST_IMAGE", one_pixel_less)
        size = "{1}x{0}".format(*expected.shape[:2])
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{size} pixels"):
            decode.checked(tf.constant([contents]), "image")


@pytest.mark.parametrize("case", BAD)
def test_refused_alike(case, tmp_path):
    contents, why = BAD[case]
    path = tmp_path / "image"
    path.write_bytes(contents)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(contents)
    with pytest.raises(pictures.Unreadable, match=why):
        pictures.read_image(path)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(endian, orientation, tmp_path):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x8769] = "maker", orientation, {0x9000: b"0230"}
    contents = encoded(picture(50, 37), "JPEG", exif=exif.tobytes())
    path = tmp_path / "image.jpg"
    path.write_bytes(contents)
    image = Image.open(path)
    expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(upright(contents), expected)
    np.testing.assert_array_equal(pictures.read_image(path, upright=True), expected)
    assert pictures.image_size(path, upright=True) == expected.shape[:2]
    np.testing.assert_array_equal(decoded(contents), np.asarray(image))


def test_damaged_exif_is_none():
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = encoded(picture(50, 37), "JPEG", exif=exif.tobytes())
    start = contents.index(b"Exif\0\0") + 6
    plain = decoded(contents)
    random = np.random.default_rng(0)
    for _ in range(40):
        spoilt = bytearray(contents)
        for place in random.integers(start, start + 26, 4):
            spoilt[place] = random.integers(256)
        found = upright(bytes(spoilt)).numpy()
        assert sorted(found.shape) == sorted(plain.shape)


def square(contents):
    """The middle of an image at `SIZE`, as `open_packed` documents it."""
    image = Image.fromarray(by_pillow(contents))
    sides = [side * SIZE // min(image.size) for side in image.size]
    image = image.resize(sides, Image.BILINEAR)
    left, top = (round((side - SIZE) / 2) for side in sides)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def write_all(folder, contents):
    folder.mkdir(parents=True)
    for number, value in enumerate(contents):
        # The contents tell the kind, whatever the suffix.
        suffix = SUFFIXES[number % len(SUFFIXES)]
        name = f"{number:03d}{suffix.upper() if number % 2 else suffix}"
        (folder / name).write_bytes(value)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A folder of two classes with every kind in each split, and what is expected."""
    root = tmp_path_factory.mktemp("kinds") / "data"
    for split in ("train", "val"):
        write_all(root / split / "all", GOOD.values())
        write_all(root / split / "one", list(GOOD.values())[:1])
    return root, np.array([square(value) for value in GOOD.values()])


def evaluated(root):
    source = open_evaluation(str(root))
    batches = evaluation_batches(
        source.validation, PREPARED, image_size=SIZE, batch_size=len(GOOD) + 1
    )
    ((images, _, weights),) = batches.as_numpy_iterator()
    assert weights.all()
    return images[: len(GOOD)]


def predicted(root):
    prepare = preparation(PREPARED)
    paths = images_of([root / "val" / "all"]).paths
    return np.array([prepare(path) for path in paths])


def served(root):
    paths = list_images(root / "val" / "all").paths
    values = [Path(path).read_bytes() for path in paths]
    return prepared(tf.constant(values), PREPARED).numpy()


def packed(root):
    return open_packed(root, SIZE, root.parent / "packed").test_images[: len(GOOD)]


def trained(root):
    split = open_source(root).train
    read = split.store.reader()
    images = [decoded(read(index)[0]).numpy() for index in range(len(GOOD))]
    return np.array([np.asarray(square(encoded_png(image))) for image in images])


def encoded_png(pixels):
    return encoded(Image.fromarray(pixels), "PNG")


def segmented(root):
    """Through ADE20K's layout, whose pictures are read as COCO's are."""
    home = root.parent / "ade"
    for split in ("training", "validation"):
        write_all(home / "images" / split, GOOD.values())
        for path in list_images(home / "images" / split).paths:
            name = path.replace("/images/", "/annotations/").rpartition(".")[0]
            size = pictures.image_size(path)
            write_map(Path(f"{name}.png"), np.ones(size))
    split = open_dense(f"ade20k:{home}", "segmentation").train
    return np.array([square(encoded_png(split.image(k))) for k in range(split.count)])


@pytest.mark.parametrize(
    "door", [trained, evaluated, predicted, served, packed, segmented]
)
def test_every_door_takes_every_kind(door, everything):
    root, expected = everything
    found = door(root)
    assert len(found) == len(GOOD)
    difference = np.abs(found - expected.astype(float))
    # Resizing rounds once in a graph and twice in Pillow.
    assert difference.max() <= 1.01


def test_what_is_ignored_is_said(tmp_path, capsys):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            write_all(tmp_path / split / name / "deeper", list(GOOD.values())[:2])
    cats = tmp_path / "train" / "cat"
    for name in (
        "._x.jpg",
        ".DS_Store",
        "@eaDir/x.jpg",
        "__MACOSX/x.jpg",
        "a.txt",
        "b.TXT",
        "c.gif",
        "README",
    ):
        (cats / name).parent.mkdir(exist_ok=True)
        (cats / name).write_bytes(b"")
    (tmp_path / "train" / "labels.csv").write_text("")
    (cats / "again").symlink_to(cats)
    source = open_source(tmp_path)
    assert (source.train.count, source.validation.count) == (4, 4)
    words = {
        "2 .txt",
        "2 hidden",
        "1 .gif",
        "1 in @eaDir",
        "1 in __MACOSX",
        "1 .csv",
        "1 without a suffix",
    }
    assert set(source.ignored.removeprefix("ignored: ").split(", ")) == words
    assert source.ignored in capsys.readouterr().out


def test_a_folder_of_other_files_says_which(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"")
    with pytest.raises(InputError, match=r"ignored: 1 \.gif.*Received: "):
        images_of([tmp_path])


def test_names_of_any_bytes(tmp_path, capfd):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            home = tmp_path / split / name
            write_all(home, [GOOD["PNG"]])
            os.rename(home / "000.jpg", bytes(home / "caf") + b"\xe9.jpg")
    source = open_source(tmp_path)
    np.testing.assert_array_equal(
        decoded(source.train.store.reader()(0)[0]), by_pillow(GOOD["PNG"])
    )
    assert open_packed(tmp_path, SIZE, tmp_path / "packed").train_images.any()
    with pytest.raises(InputError, match=r"another --output. Received: b'.*\\xe9'"):
        check_results(argparse.Namespace(output=Path(os.fsdecode(b"caf\xe9"))))
    os.rename(tmp_path / "val" / "dog", bytes(tmp_path / "val" / "d") + b"\xe9")
    with pytest.raises(InputError, match=r"not: rename it. Received: b'.*\\xe9'"):
        open_source(tmp_path)


@pytest.mark.parametrize(("ours", "theirs"), [("cafe\u0301", "caf\u00e9"), ("a ", "a")])
def test_names_that_look_alike(ours, theirs, tmp_path):
    for split, name in (("train", ours), ("val", theirs)):
        for each in (name, "dog"):
            write_all(tmp_path / split / each, [GOOD["PNG"]])
    with pytest.raises(InputError, match="only blanks, case or Unicode's forms differ"):
        open_source(tmp_path)
