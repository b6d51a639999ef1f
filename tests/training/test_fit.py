"""A recipe in a `fit` of one's own: README's code, the trainer's images and updates."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import engine_cases
import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import long
from image_folders import numbered_source

from kmlp.data.reading import evaluation_batches
from kmlp.errors import InputError
from kmlp.recipes import Recipe, get, list_recipes, recipe_for
from kmlp.recipes.fit import _shared_sizes
from kmlp.training.distillation import Objective
from kmlp.training.engine.engine import Options
from kmlp.training.engine.tensorflow import TensorFlowEngine
from kmlp.training.input.order import visits
from kmlp.training.input.pipeline import training_batches
from kmlp.training.optimization import make_optimizer, make_schedule
from kmlp.training.tasks.classification import Classification

ROOT = Path(__file__).parents[2]
SIZE = 16


def readme_code():
    text = (ROOT / "README.md").read_text()
    section = text.partition("### In your own `fit`\n")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.mark.long
def test_readme_on_two_replicas(tmp_path):
    code = readme_code()
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "snippet.txt").write_text(code)
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
mirrored = tf.distribute.MirroredStrategy
tf.distribute.MirroredStrategy = lambda: mirrored(["CPU:0", "CPU:1"])
import keras
import kmlp
numbers = np.random.default_rng(0)
pixels = numbers.integers(0, 256, (24, 20, 18, 3), np.uint8)
images = tf.data.Dataset.from_tensor_slices((pixels, np.arange(24) % 10))
test_images = images.take(9)
changes = {{"epochs": 3, "batch_size": 8, "image_size": 32, "ema": 0.5}}
def network(drop_path_rate):
    return kmlp.create_model(
        "convmlp_s", 10, (32, 32, 3), stem_width=8, conv_blocks=1,
        widths=(8, 8, 16), depths=(1, 1, 1), drop_path_rate=drop_path_rate,
    )
exec(open("snippet.txt").read())
assert model.distribute_strategy.num_replicas_in_sync == 2
assert model.optimizer.iterations.numpy() == steps * recipe.total_epochs == 9
export = options["callbacks"][-1]
assert export.report["failure"] is None, export.report
assert export.report["averaged_weights"] and export.report["published"]
assert np.isfinite(model.history.history["val_loss"]).all()
assert len(list(test)) == 2
lone = keras.models.clone_model(model)
lone.set_weights(model.get_weights())
# Replicas have learned BatchNorm statistics of their own.
model.set_weights(model.get_weights())
lone.compile(loss=recipe.loss(), metrics=["accuracy"])
# A last batch of one image, of none, of three; fewer than a batch.
for count in (9, 16, 17, 19, 6):
    shown = images.take(count)
    alone = recipe.dataset(shown, num_classes=10, training=False)
    with model.distribute_strategy.scope():
        shared = recipe.dataset(shown, num_classes=10, training=False)
    assert sum(len(targets) for _, targets in shared) == count
    expected = lone.evaluate(alone, verbose=0, return_dict=True)
    found = model.evaluate(shared, verbose=0, return_dict=True)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "saved_models/mine/1/model.tflite").exists()


@pytest.mark.parametrize("repeats", [long(1), 3])
def test_images_are_the_trainers(repeats):
    source = numbered_source(12, 20, flip=True)
    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, source.train.store.images.shape, np.uint8)
    store = dataclasses.replace(source.train.store, images=pixels)
    split = dataclasses.replace(source.train, store=store)
    source = dataclasses.replace(source, train=split)
    recipe = get("convmlp_imagenet", image_size=SIZE, batch_size=4, repeats=repeats)
    sizes = {"batch_size": 4, "global_batch": 4}
    trainer = training_batches(source, recipe.recipe, image_size=SIZE, seed=5, **sizes)
    order = visits(
        12, **sizes, start_step=0, worker=0, workers=1, seed=5, repeats=repeats
    )
    shown = np.concatenate([i for i, _ in order.take(3).as_numpy_iterator()])
    shown = shown[::repeats]
    dataset = tf.data.Dataset.from_tensor_slices(
        (pixels[shown], source.train.store.labels[shown])
    )
    own = recipe.dataset(dataset, num_classes=10, seed=5)
    for ours, theirs in zip(
        own.take(3).as_numpy_iterator(), trainer.as_numpy_iterator()
    ):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_epoch_is_augmented_anew_and_files_are_read():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    recipe = get("msmlp_imagenet", image_size=SIZE, batch_size=4)
    of_pixels, of_files = (
        recipe.dataset(
            tf.data.Dataset.from_tensor_slices((images, np.arange(4))), num_classes=4
        )
        for images in (pixels, files)
    )
    epochs = [images for images, _ in of_pixels.take(2).as_numpy_iterator()]
    assert np.abs(epochs[0] - epochs[1]).max() > 0.1
    for images, again in zip(epochs, of_files.take(2).as_numpy_iterator()):
        np.testing.assert_array_equal(images, again[0])


def test_test_images_are_the_trainers():
    source = numbered_source(4, 20, validation=7)
    recipe = get("convmlp_imagenet", image_size=SIZE, batch_size=4)
    store = source.validation.store
    dataset = tf.data.Dataset.from_tensor_slices((store.images, store.labels))
    own = recipe.dataset(dataset, num_classes=10, training=False)
    images, targets = (np.concatenate(parts) for parts in zip(*own.as_numpy_iterator()))
    batches = evaluation_batches(
        source.validation, recipe.recipe, image_size=SIZE, batch_size=4
    )
    expected, labels, _ = (
        np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator())
    )
    np.testing.assert_array_equal(images, expected[:7])
    np.testing.assert_array_equal(targets, np.eye(10)[labels[:7]])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("msmlp_imagenet", {"clip_norm": 0.1}),
        long("convmlp_imagenet", {}),
        long("resmlp_imagenet", {}),
    ],
)
def test_updates_are_the_engines(name, changes):
    recipe = get(name, batch_size=engine_cases.GLOBAL_BATCH, epochs=2, **changes)
    # A bias before a norm has no gradient but rounding.
    recipe = dataclasses.replace(
        recipe, recipe=dataclasses.replace(recipe.recipe, epsilon=1e-4)
    )
    family, arguments = engine_cases.TINY["resmlp"]

    def network():
        keras.utils.set_random_seed(0)
        return family(engine_cases.CLASSES, **arguments)

    engine = TensorFlowEngine(tf.distribute.OneDeviceStrategy("/cpu:0"), "one device")
    with engine.scope():
        expected = network()
        engine.prepare(
            expected,
            make_optimizer(recipe.recipe, expected, make_schedule(recipe.recipe, 2)),
            Classification(Objective()),
            Options(clip_norm=recipe.clip_norm, ema=recipe.ema),
        )
    batches = [engine_cases.images("resmlp", step) for step in range(3)]
    spec = tuple(tf.TensorSpec(part.shape, part.dtype) for part in batches[0])
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=spec
    )
    engine.train(iter(dataset.repeat()), 3)
    model = network()
    start = model.get_weights()
    model.compile(recipe.optimizer(model, 2), recipe.loss())
    for inputs, targets in batches:
        model.train_on_batch(inputs, targets)
    assert model.optimizer.use_ema == (recipe.evaluate == "ema")
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(start, model.get_weights()))
    for one, other in zip(model.trainable_variables, expected.trainable_variables):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("replicas", [2, 3, 4, 8])
@pytest.mark.parametrize("batch_size", [8, 24, 30])
def test_every_replica_has_an_image_of_every_batch(replicas, batch_size):
    for images in range(replicas, 150):
        try:
            sizes = _shared_sizes(images, batch_size, replicas)
        except InputError:
            assert images % replicas
            assert images < replicas**2
            continue
        assert sum(sizes) == images
        for size in sizes:
            share = -(-size // replicas)  # as tf.distribute divides a batch
            assert size > (replicas - 1) * share
        assert not any(size % replicas for size in sizes[:-1])
    with pytest.raises(InputError, match="1 images for 2 replicas"):
        _shared_sizes(1, batch_size, 2)


def test_recipes_are_the_papers():
    for name in list_recipes():
        assert isinstance(get(name).recipe, Recipe)
        assert get(name, "convmlp_s").recipe == recipe_for("convmlp_s", name=name)
    recipe = get("convmlp_imagenet", epochs=30)
    assert (recipe.warmup_epochs, recipe.cooldown_epochs) == (0.5, 1)
    assert recipe.total_epochs == 31
    assert get("resmlp_imagenet").averages is False


def test_mistakes_say_what_to_do():
    for call, words in (
        (lambda: get("convmlp_imagnet"), "choose convmlp_imagenet"),
        (lambda: get("convmlp_imagenet", epoch=3), "choose epochs. Received: epoch=3"),
        (lambda: get("convmlp_imagenet", notes="x"), "describes the recipe"),
        (lambda: get("convmlp_imagenet", mixup=-1), "of at least 0. Received: mixup"),
        (lambda: get("small_images").total_epochs, "pass epochs"),
        (lambda: get("small_images").optimizer(None, 3), "pass epochs"),
        (
            lambda: get("convmlp_imagenet", accumulate=2).optimizer(None, 3),
            "leave accumulate at 1",
        ),
        (lambda: get("resmlp_imagenet_distilled").loss(), "distillation='none'"),
        (
            lambda: get("small_images").dataset(None, num_classes=3),
            "pass mean and std",
        ),
    ):
        with pytest.raises(InputError) as stopped:
            call()
        assert words in str(stopped.value)
        assert "Received: " in str(stopped.value)
    with pytest.raises(AttributeError, match="no 'lerning_rate'"):
        get("convmlp_imagenet").lerning_rate  # noqa: B018
