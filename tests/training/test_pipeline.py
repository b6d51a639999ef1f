"""Batches: who sees which image when, augmented how, and what happens to bad files."""

import dataclasses
import shutil
import sys
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from cases import long
from image_folders import DAMAGES, damage, numbered_source, write_folder, write_image
from stopping import stopped

from kmlp.commands import benchmark_input
from kmlp.data.reading import evaluation_batches, reason, statistics
from kmlp.data.sources import open_source
from kmlp.errors import KmlpError
from kmlp.recipes import ClassificationRecipe as Recipe
from kmlp.training.input import in_memory, order
from kmlp.training.input.in_memory import load
from kmlp.training.input.pipeline import training_batches

SIZE = 8
PLAIN = Recipe(
    name="test", batch_size=4, learning_rate=1.0, image_size=SIZE, crop="none", flip=0.0
)
CROPPED = dataclasses.replace(PLAIN, crop="resized", interpolation="random", flip=0.5)
FULL = dataclasses.replace(
    CROPPED,
    policy="rand-m9-mstd0.5-inc1",
    erasing=0.5,
    mixup=0.8,
    cutmix=1.0,
    label_smoothing=0.1,
    repeats=3,
)


def batches(source, recipe, count, **options):
    """`count` batches as arrays."""
    options = {"image_size": SIZE, "batch_size": 4, "global_batch": 4, **options}
    dataset = training_batches(source, recipe, **options)
    return list(dataset.take(count).as_numpy_iterator())


def numbers(images):
    """The numbers that `numbered_source` wrote into images."""
    corner = np.asarray(images)[:, 0, 0]
    return np.rint(corner[:, 0] + 256 * corner[:, 1]).astype(int)


def coloured_source(count=24, side=12):
    """Images of noise, of which no two crops look alike."""
    source = numbered_source(count, side, flip=True)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    store = dataclasses.replace(source.train.store, images=images)
    split = dataclasses.replace(source.train, store=store)
    return dataclasses.replace(source, train=split)


def test_random_bits_are_splitmix64():
    """The generator's published first outputs for the seed 1234567."""
    expected = (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    )
    first = tf.constant(1234567, tf.uint64)
    state = first + np.arange(len(expected), dtype=np.uint64) * order._GAMMA
    for kind in (np.array, tf.constant):
        assert np.array(order.scrambled(kind(state))).tolist() == list(expected)


def test_random_numbers_are_uniform_and_independent():
    bits = order.bits(3, order.SAMPLE, tf.range(40000, dtype=tf.int64), 3)
    draws = order.uniform(bits).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 100)[0]
    assert ((counts - 1200) ** 2 / 1200).sum() < 150  # 99 degrees of freedom
    columns = [*draws.T, *np.roll(draws, 1, axis=0).T]
    correlation = np.corrcoef(columns) - np.eye(6)
    assert np.abs(correlation).max() < 0.02


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_orders_are_permutations(count):
    orders = [
        order.permutation(5, tf.constant(e, tf.int64), count).numpy() for e in range(4)
    ]
    for shuffled in orders:
        np.testing.assert_array_equal(np.sort(shuffled), np.arange(count))
    if count > 100:
        correlation = np.corrcoef([*orders, *(np.roll(o, 1) for o in orders)])
        assert np.abs(correlation - np.eye(8)).max() < 0.15


@pytest.mark.parametrize(("count", "repeats"), [(20, 1), (22, 1), (24, 3), (23, 2)])
def test_epoch_shows_every_image_as_often_as_it_should(count, repeats):
    source = numbered_source(count)
    steps = count // 4
    recipe = dataclasses.replace(PLAIN, repeats=repeats)
    shown = [numbers(x) for x, _ in batches(source, recipe, 3 * steps)]
    epochs = np.reshape(shown, (3, -1))
    for epoch in epochs:
        _, often = np.unique(epoch, return_counts=True)
        assert often.max() <= repeats
        assert len(often) == -(-4 * steps // repeats)
        np.testing.assert_array_equal(
            epoch, np.repeat(epoch[::repeats], repeats)[: 4 * steps]
        )
    assert not np.array_equal(epochs[0], epochs[1])
    other = [numbers(x) for x, _ in batches(source, recipe, steps, seed=1)]
    assert not np.array_equal(np.ravel(other), epochs[0])


def test_labels_go_with_images():
    for images, targets in batches(numbered_source(300), PLAIN, 20):
        np.testing.assert_array_equal(targets.argmax(-1), numbers(images) % 10)
        np.testing.assert_array_equal(targets.sum(-1), 1)


@pytest.mark.parametrize(
    ("workers", "batch_size", "repeats"), [(1, 4, 1), (2, 6, 1), (3, 2, 3)]
)
def test_workers_and_replicas_share_the_images_of_one(workers, batch_size, repeats):
    source, steps = coloured_source(), 5
    recipe = dataclasses.replace(CROPPED, repeats=repeats)
    alone = batches(source, recipe, steps, batch_size=12, global_batch=12)
    each = 12 // workers // batch_size
    shared = [
        batches(
            source,
            recipe,
            steps * each,
            batch_size=batch_size,
            global_batch=12,
            worker=worker,
            workers=workers,
        )
        for worker in range(workers)
    ]
    for part in (0, 1):
        of_workers = [
            np.reshape([b[part] for b in w], (steps, 12 // workers, -1)) for w in shared
        ]
        together = np.stack(of_workers, axis=2).reshape(steps, 12, -1)
        expected = np.reshape([b[part] for b in alone], (steps, 12, -1))
        np.testing.assert_array_equal(together, expected)


@pytest.mark.parametrize(
    ("recipe", "start"), [(FULL, 5), (CROPPED, 1), long(CROPPED, 6), long(CROPPED, 12)]
)
def test_a_run_goes_on_at_any_step(recipe, start):
    """Bit for bit, over the ends of epochs, with everything that is random."""
    source = coloured_source()
    whole = batches(source, recipe, 13)
    for images, targets in whole:
        assert images.shape == (4, SIZE, SIZE, 3)
        assert images.dtype == targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    rest = batches(source, recipe, 13 - start, start_step=start)
    for (images, targets), (others, classes) in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(targets, classes)


def test_repeats_are_different_crops():
    source = numbered_source(24, 12, flip=True)
    recipe = dataclasses.replace(CROPPED, repeats=3)
    gradient = np.arange(144, dtype=np.uint8).reshape(12, 12)
    images = np.array(source.train.store.images)
    images[..., 2] = gradient
    store = dataclasses.replace(source.train.store, images=images)
    source = dataclasses.replace(
        source, train=dataclasses.replace(source.train, store=store)
    )
    for images, _ in batches(source, recipe, 4, batch_size=12, global_batch=12):
        for of_image in images.reshape(4, 3, SIZE, SIZE, 3):
            assert len(np.unique(numbers(of_image))) == 1
            assert len(np.unique(of_image[..., 2].reshape(3, -1), axis=0)) == 3


@pytest.mark.parametrize("flip", [0.0, 0.3, 0.5, 1.0, None])
@pytest.mark.parametrize("allowed", [True, False])
def test_mirroring(flip, allowed):
    source = numbered_source(64, SIZE, flip=allowed)
    images = np.array(source.train.store.images)
    images[:, :, -1, 2] = 255
    store = dataclasses.replace(source.train.store, images=images)
    split = dataclasses.replace(source.train, store=store)
    source = dataclasses.replace(source, train=split)
    recipe = dataclasses.replace(PLAIN, flip=flip)
    shown = batches(source, recipe, 12, batch_size=64, global_batch=64)
    mirrored = np.mean([images[:, 0, 0, 2] == 255 for images, _ in shown])
    expected = (0.5 if flip is None else flip) * allowed
    assert abs(mirrored - expected) < 0.06  # 3 deviations of 768 draws


@pytest.mark.parametrize("crop", ["shift", "pad", "none", "resized"])
def test_images_of_any_shape(crop, tmp_path):
    """Small, long, grey: all become what the model sees."""
    sizes = [(1, 1), (3, 90), (200, 150), (8, 8), (9, 300)]
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number, size in enumerate(sizes):
                path = tmp_path / split / name / str(number)
                write_image(path.with_suffix(".jpg"), size=size, channels=1)
                write_image(path.with_suffix(".png"), size=size)
    source = open_source(tmp_path)
    recipe = dataclasses.replace(CROPPED, crop=crop)
    for ready in (source, load(source, recipe)):
        for images, _ in batches(ready, recipe, 5):
            assert images.shape == (4, SIZE, SIZE, 3)
            assert np.isfinite(images).all()


@pytest.mark.parametrize("crop", ["shift", "resized"])
def test_files_give_the_images_of_memory(crop, tmp_path, monkeypatch):
    files = open_source(write_folder(tmp_path / "images"))
    recipe = dataclasses.replace(CROPPED, crop=crop)
    memory = load(files, recipe)
    monkeypatch.setattr(in_memory, "allowance", lambda: 0)
    assert load(files, recipe) is files
    for ours, theirs in zip(batches(files, recipe, 4), batches(memory, recipe, 4)):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
    options = {"image_size": SIZE, "batch_size": 4}
    ours, theirs = (
        evaluation_batches(source.validation, recipe, **options)
        for source in (files, memory)
    )
    for our, their in zip(ours, theirs, strict=True):
        for a, b in zip(our, their):
            np.testing.assert_array_equal(a, b)


# Images, batch, workers, replicas -> batches of each worker.
EVALUATIONS = {
    (5, 5, 1, 1): 1,
    (5, 4, 1, 1): 2,
    (5, 2, 1, 2): 4,
    (5, 2, 2, 1): 2,
    (5, 2, 2, 2): 2,
    (3, 2, 4, 1): 1,
    (17, 2, 3, 2): 4,
}


@pytest.mark.parametrize("case", EVALUATIONS)
def test_evaluation_shows_every_image_once(case):
    count, batch_size, workers, replicas = case
    source = numbered_source(8, validation=count)
    shown = []
    for worker in range(workers):
        dataset = evaluation_batches(
            source.validation,
            PLAIN,
            image_size=SIZE,
            batch_size=batch_size,
            worker=worker,
            workers=workers,
            replicas=replicas,
        )
        found = list(dataset.as_numpy_iterator())
        assert len(found) == EVALUATIONS[case]
        for images, labels, weights in found:
            assert images.shape == (batch_size, SIZE, SIZE, 3)
            assert (labels.dtype, weights.dtype) == (np.int32, np.float32)
            assert set(weights) <= {0, 1}
            real = weights > 0
            np.testing.assert_array_equal(labels[real], numbers(images[real]) % 10)
            shown += numbers(images[real]).tolist()
    if workers == 1:
        assert shown == list(range(count))
    assert sorted(shown) == list(range(count))


GONE = "No such file or directory"
# The further kinds of damage differ in their message alone.
SLOW_DAMAGES = [long(reason) for reason in list(DAMAGES)[1:]]


@pytest.mark.parametrize(
    ("reason", "crop"),
    [
        ("damaged JPEG", "resized"),
        long("damaged JPEG", "shift"),
        (GONE, "resized"),
        *(long(reason, "resized") for reason in list(DAMAGES)[1:]),
    ],
)
def test_image_that_is_lost_while_training(reason, crop, tmp_path, capsys):
    """Met in the middle of a run, as nothing was read before."""
    folder = write_folder(tmp_path / "images", count=5)
    path = folder / "train/dog/2.jpg"
    if reason in DAMAGES:
        path = damage(folder / "train/dog", reason)
    source = open_source(folder)
    skipping = open_source(folder, on_corrupt="skip")
    if reason == GONE:
        path.unlink()
    recipe = dataclasses.replace(CROPPED, crop=crop)
    options = {"image_size": SIZE, "batch_size": 2, "global_batch": 2}
    stop = stopped(training_batches(source, recipe, **options).take(10))
    assert f"Received: {path} ({reason})" in str(stop)
    assert "\n" not in str(stop)
    if reason == GONE:  # more may be
        dataset = training_batches(skipping, recipe, **options).take(10)
        assert str(path) in str(stopped(dataset))
        return
    capsys.readouterr()
    shown = batches(skipping, recipe, 10, **options)
    assert capsys.readouterr().out.count(f"Skipped {path} ({reason})") == 1
    # Its place is taken by what follows it in the folder, and all else is as it was.
    (folder / "train/dog" / path.name).unlink()
    names = sorted(path.name for path in (folder / "train/dog").iterdir())
    later = [name for name in names if name > path.name]
    follower = folder / "train" / (f"dog/{later[0]}" if later else "cat/0.jpg")
    shutil.copy(follower, path)
    expected = batches(open_source(folder), recipe, 10, **options)
    for (images, _), (others, _) in zip(shown, expected):
        np.testing.assert_array_equal(images, others)


@pytest.mark.parametrize("reason", ["damaged JPEG", *SLOW_DAMAGES])
def test_image_that_is_lost_while_evaluating(reason, tmp_path):
    folder = write_folder(tmp_path / "images")
    path = damage(folder / "val/cat", reason)
    options = {"image_size": SIZE, "batch_size": 2}
    for on_corrupt in ("stop", "skip"):
        source = open_source(folder, on_corrupt=on_corrupt)
        dataset = evaluation_batches(source.validation, PLAIN, **options)
        if on_corrupt == "stop":
            assert f"{path} ({reason})" in str(stopped(dataset))
        else:
            weights = np.concatenate([w for _, _, w in dataset.as_numpy_iterator()])
            assert (weights.sum(), len(weights)) == (6, 8)


def test_other_errors_have_no_such_reason():
    assert reason(ValueError("something else")) is None


def test_bad_input():
    source = numbered_source(8)
    with pytest.raises(KmlpError, match="more images than there are to train on, 8"):
        batches(source, PLAIN, 1, batch_size=9, global_batch=9)
    for options in ({"global_batch": 6}, {"global_batch": 4, "workers": 3}):
        with pytest.raises(ValueError, match="Received: global_batch="):
            batches(source, PLAIN, 1, **options)


def test_statistics():
    split, recipe = numbered_source(8).train, PLAIN
    given = dataclasses.replace(recipe, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert statistics(split, recipe) == (split.mean, split.std)
    assert statistics(split, given) == (given.mean, given.std)
    unknown = dataclasses.replace(split, mean=None, std=None)
    assert statistics(unknown, given) == (given.mean, given.std)
    for known in ({}, {"mean": (0.1, 0.2, 0.3)}):
        with pytest.raises(KmlpError, match="mean"):
            statistics(unknown, dataclasses.replace(recipe, **known))


@pytest.mark.long
def test_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_input, "WARM_SECONDS", 0.1)
    write_folder(tmp_path / "images")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "images")
    few = ["--rounds", "1", "--seconds", "1", "--batch-size", "4"]
    arguments = ["--data", str(tmp_path / "images.tar"), *few]
    assert benchmark_input.main(arguments) == 0
    title, _, ours = capsys.readouterr().out.splitlines()
    assert title.startswith("convmlp_imagenet, 224x224, 12 files")
    wall, core, milliseconds = map(float, ours.split()[1:])
    assert wall > 0
    assert core * milliseconds == pytest.approx(1000, rel=0.1)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for more, words in (
        (["--recipe", "no"], "Unknown recipe: choose one of "),
        (["--against", "timm"], "pip install timm torchvision"),
        (["--data", str(tmp_path / "none")], "does not exist"),
    ):
        assert benchmark_input.main([*arguments, *more]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
