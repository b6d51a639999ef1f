"""Losses with a teacher against torch, and teachers from every form."""

import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import long
from keras.src.utils import file_utils

import kmlp
from kmlp.errors import KmlpError
from kmlp.training.distillation import Objective, open_teacher
from kmlp.training.teacher_networks import applications

ROOT = Path(__file__).resolve().parents[2]
CLASSES, SIZE = 5, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
STUDENT = {"num_classes": CLASSES, "image_size": SIZE, "mean": MEAN, "std": STD}


def draw(*shape, seed=0, scale=3.0):
    values = np.random.default_rng(seed).normal(size=shape) * scale
    return values.astype("float32")


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


# Kind, the teacher's share, temperature.
OBJECTIVES = [
    ("none", 0.5, 3.0),
    ("hard", 1.0, 3.0),
    ("hard", 0.5, 3.0),
    ("soft", 0.1, 3.0),
    ("soft", 0.5, 1.0),
    ("soft", 1.0, 8.0),
]


@pytest.mark.parametrize(("kind", "alpha", "temperature"), OBJECTIVES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3])
def test_objective_is_torchs(kind, alpha, temperature, scale):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    logits, teacher = draw(7, 11, scale=scale), draw(7, 11, seed=1, scale=scale)
    targets = softmax(draw(7, 11, seed=2))  # mixed and smoothed ones are no one-hot
    objective = Objective(kind, alpha, temperature)
    found = objective(logits, targets, None if kind == "none" else teacher)
    s, t, y = (torch.tensor(a, dtype=torch.float64) for a in (logits, teacher, targets))
    expected = functional.cross_entropy(s, y, reduction="none")
    if kind == "hard":
        taught = functional.cross_entropy(s, t.argmax(1), reduction="none")
        expected = (1 - alpha) * expected + alpha * taught
    if kind == "soft":
        taught = functional.kl_div(
            functional.log_softmax(s / temperature, dim=1),
            functional.log_softmax(t / temperature, dim=1),
            reduction="none",
            log_target=True,
        )
        taught = taught.sum(1) * temperature**2
        expected = (1 - alpha) * expected + alpha * taught
    assert found.shape == (7,)
    assert found.dtype == tf.float32
    # Logarithms of float32 shares are known to 1e-7, which the temperature magnifies.
    atol = 2e-6 * scale + 3e-7 * temperature**2
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=atol)


# Student and teacher as odds of the second class; a quarter and a half to the first.
BY_HAND = {
    "none": (Objective("none"), math.log(4)),
    "hard": (Objective("hard", 0.25), 0.75 * math.log(4) + 0.25 * math.log(4 / 3)),
    "hard alone": (Objective("hard", 1.0), math.log(4 / 3)),
    "soft": (
        Objective("soft", 0.5, 1.0),
        0.5 * math.log(4) + 0.5 * (0.4 * math.log(1.6) + 0.6 * math.log(0.8)),
    ),
    # With doubled logits, temperature 2 finds the same shares and weighs them by 4.
    "warm": (
        Objective("soft", 1.0, 2.0),
        4 * (0.4 * math.log(1.6) + 0.6 * math.log(0.8)),
    ),
}


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("case", BY_HAND)
def test_objective_by_hand(case, precision):
    objective, expected = BY_HAND[case]
    factor = objective.temperature if case == "warm" else 1
    student = factor * np.log([[0.25, 0.75]]).astype(precision)
    teacher = factor * np.log([[0.4, 0.6]]).astype(precision)
    found = objective(student, np.array([[1.0, 0.0]], precision), teacher)
    np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_hard_teacher_alone_needs_no_labels():
    objective = Objective("hard", 1.0)
    logits, teacher = draw(4, 3), draw(4, 3, seed=1)
    first = objective(logits, softmax(draw(4, 3, seed=2)), teacher)
    np.testing.assert_array_equal(first, objective(logits, None, teacher))


BAD_OBJECTIVES = {
    "kind": ({"kind": "sft"}, "none, hard, soft"),
    "share": ({"kind": "soft", "alpha": 1.5}, "0…1"),
    "share nan": ({"kind": "soft", "alpha": math.nan}, "0…1"),
    "temperature": ({"kind": "soft", "temperature": 0.0}, "positive"),
}


@pytest.mark.parametrize("case", BAD_OBJECTIVES)
def test_bad_objective(case):
    values, words = BAD_OBJECTIVES[case]
    with pytest.raises(KmlpError, match=words) as stopped:
        Objective(**values)
    assert "Received: " in str(stopped.value)
    with pytest.raises(ValueError, match="needs a teacher"):
        Objective("hard")(draw(2, 3), draw(2, 3))


def small(size=SIZE, classes=CLASSES, **arguments):
    """A network whose answers differ from image to image."""
    model = kmlp.ResMLP(
        classes, (size, size, 3), patch_size=4, width=8, depth=1, **arguments
    )
    for index, weight in enumerate(model.weights):
        weight.assign(draw(*weight.shape, seed=index, scale=0.3))
    return model


@pytest.fixture(scope="module")
def model():
    return small()


def save(model, form, folder):
    """Writes a model as a teacher; the way to it."""
    if form == "keras":
        model.save(folder / "teacher.keras")
        return folder / "teacher.keras"
    return kmlp.export.saved_model(model, folder, merge=False)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_teacher_is_the_network(form, own, model, tmp_path):
    path = save(model, form, tmp_path)
    images = pixels = draw(3, SIZE, SIZE, 3, scale=1.0)
    if own:  # a run says how its network wants the images
        folder = path if path.is_dir() else path.parent
        mean, std = (0.1, 0.2, 0.3), (0.7, 0.8, 0.9)
        report = {"data": {"mean": mean, "std": std}}
        (folder / "report.json").write_text(json.dumps(report))
        images = (pixels - np.array(MEAN)) / np.array(STD)
        pixels = (pixels - np.array(mean)) / np.array(std)
    teacher = open_teacher(str(path), **STUDENT)
    expected = np.asarray(model(pixels.astype("float32"), training=False))
    found = np.asarray(teacher(images.astype("float32")))
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
    assert (teacher.num_classes, teacher.image_size) == (CLASSES, (SIZE, SIZE))
    assert (teacher.model is None) == (form == "saved_model")
    if teacher.model is not None:
        assert teacher.model.trainable_variables == []


@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_softmax_becomes_logits(form, model, tmp_path):
    ended = keras.Sequential([model, keras.layers.Softmax()])
    teacher = open_teacher(str(save(ended, form, tmp_path)), **STUDENT)
    images = draw(3, SIZE, SIZE, 3, scale=1.0)
    logits = np.asarray(model(images, training=False), "float64")
    found = np.asarray(teacher(images), "float64")
    # Logits are what they are up to a constant per image.
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mixed_precision_teacher_answers_in_float32(model, tmp_path):
    mixed = small(dtype="mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    teacher = open_teacher(str(save(mixed, "keras", tmp_path)), **STUDENT)
    images = draw(3, SIZE, SIZE, 3, scale=1.0)
    found, expected = teacher(images), np.asarray(model(images, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("sides", [(12, 16), (16, 24), (16, 32)])
def test_resized_as_torch_does(sides, tmp_path):
    torch = pytest.importorskip("torch")
    own, students = sides
    model = small(own)
    teacher = open_teacher(
        str(save(model, "keras", tmp_path)), **{**STUDENT, "image_size": students}
    )
    images = draw(2, students, students, 3, scale=1.0)
    resized = torch.nn.functional.interpolate(
        torch.tensor(images).permute(0, 3, 1, 2),
        (own, own),
        mode="bilinear",
        antialias=True,
    )
    expected = model(resized.permute(0, 2, 3, 1).numpy(), training=False)
    np.testing.assert_allclose(teacher(images), expected, atol=1e-4)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """`(MobileNetV2 with its softmax, file of its weights)`, far from a new one."""
    model = keras.applications.MobileNetV2(weights=None, classes=CLASSES)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(draw(4, 224, 224, 3, scale=1.0), training=True)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    model.save_weights(path)
    return model, path


@pytest.mark.parametrize("policy", [long("float32"), "mixed_bfloat16"])
def test_application(policy, mobilenet):
    model, path = mobilenet
    keras.config.set_dtype_policy(policy)
    try:
        student = {**STUDENT, "image_size": 224}
        teacher = open_teacher(f"MobileNetV2:{path}", **student)
        assert keras.config.dtype_policy().name == policy
    finally:
        keras.config.set_dtype_policy("float32")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3))
    images = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    prepared = keras.applications.mobilenet_v2.preprocess_input(
        pixels.astype("float32")
    )
    expected = np.asarray(model(prepared, training=False))
    found = np.asarray(teacher(images.astype("float32")))
    assert np.ptp(found) > 0.1
    np.testing.assert_allclose(softmax(found), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet50", "ResNet50", "efficientnet-v2-s"])
def test_applications_are_found_by_any_spelling(name):
    found = applications()[name.lower().replace("-", "")]
    assert "classifier_activation" in inspect.signature(found).parameters
    assert len(applications()) > 35


# Case -> (specification, with FOLDER filled in, words of the message).
BAD_TEACHERS = {
    "no file": ("FOLDER/no.keras", "does not exist"),
    "no file here": ("no.keras", "does not exist"),
    "name": ("resnet51", "resnet50"),
    "no such network": ("regnety_160", "names nearest"),
    "text": ("FOLDER/text.keras", "cannot be read"),
    "half a file": ("FOLDER/half.keras", "cannot be read"),
    "empty folder": ("FOLDER/empty", "no saved_model.pb"),
    "no SavedModel": ("FOLDER/broken", "cannot be loaded"),
    "classes": ("FOLDER/three.keras", "knows 3 classes and the data have 5"),
    "no image": ("FOLDER/vector.keras", "takes (None, 4)"),
    "no classes": ("FOLDER/map.keras", "one vector of classes"),
    "static batch": ("FOLDER/static", "(None, H, W, 3)"),
    "no weights": ("mobilenet_v2:FOLDER/no.weights.h5", "no such file"),
    "other weights": ("mobilenet_v2:FOLDER/three.weights.h5", "5 classes"),
    "thousand": ("resnet50", "1,000 classes and the data have 5"),
    "broken report": ("FOLDER/run/good.keras", "report.json"),
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory, model, mobilenet):
    folder = tmp_path_factory.mktemp("bad")
    for name in ("empty", "broken", "run"):
        (folder / name).mkdir()
    (folder / "text.keras").write_text("no zip")
    (folder / "broken/saved_model.pb").write_text("no graph")
    (folder / "run/report.json").write_text("{")
    model.save(folder / "run/good.keras")
    half = (folder / "run/good.keras").read_bytes()
    (folder / "half.keras").write_bytes(half[: len(half) // 2])
    small(classes=3).save(folder / "three.keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)]).save(
        folder / "vector.keras"
    )
    keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Dense(5)]).save(
        folder / "map.keras"
    )
    static = tf.TensorSpec((1, SIZE, SIZE, 3))
    function = tf.function(lambda x: x[:, 0, 0], input_signature=[static])
    tf.saved_model.save(tf.Module(), folder / "static", {"serving_default": function})
    small(classes=3).save_weights(folder / "three.weights.h5")
    return folder


@pytest.mark.parametrize("case", BAD_TEACHERS)
def test_bad_teacher(case, bad):
    spec, words = BAD_TEACHERS[case]
    spec = spec.replace("FOLDER", str(bad))
    with pytest.raises(KmlpError) as stopped:
        open_teacher(spec, **STUDENT)
    message = str(stopped.value)
    assert words in message
    assert "Received: " in message
    assert len(message) < 600


def test_no_network(tmp_path, monkeypatch):
    def fail(*_):
        raise URLError("no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", fail)
    with pytest.raises(KmlpError) as stopped:
        open_teacher("mobilenet_v2", **{**STUDENT, "num_classes": 1000})
    assert "https://storage.googleapis.com/tensorflow/" in str(stopped.value)
    assert "_224.h5 where there is a network" in str(stopped.value)
    assert "pass mobilenet_v2:FILE" in str(stopped.value)


@pytest.mark.parametrize(
    ("names", "words"), [("abcde", None), ("abced", "class 3 is 'd' and not 'e'")]
)
def test_class_names(names, words, model, tmp_path):
    path = save(model, "keras", tmp_path)
    written = {"class_names": list("abcde"), "mean": MEAN, "std": STD}
    (tmp_path / "report.json").write_text(json.dumps({"data": written}))
    if words is None:
        open_teacher(str(path), **STUDENT, class_names=tuple(names))
        return
    with pytest.raises(KmlpError, match=words):
        open_teacher(str(path), **STUDENT, class_names=tuple(names))


# Both engines' steps, in processes of their own: devices and backends are chosen
# once. The gradient must be the one of a teacher that was asked beforehand.
BEFORE = """
import sys, keras, numpy as np
from kmlp.errors import KmlpError as Stop
from kmlp.training.distillation import Objective, open_teacher
_, arrays, *paths, result = sys.argv
x, y = np.load(arrays)["x"], np.load(arrays)["y"]
objective = Objective("soft", 0.5, 2.0)
student = dict(num_classes=5, image_size=16, mean=(.5, .4, .3), std=(.2, .3, .25))
found = []
"""
STEPS = {
    "tensorflow": """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu[0], two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def shards(a):
    return strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(a[c.replica_id_in_sync_group * 2:][:2]))

for path in paths:
    with strategy.scope():
        teacher = open_teacher(path, **student)
        kernel = tf.Variable(tf.fill((768, 5), 0.01))

    def step(x, y):
        taught = teacher(x)
        with tf.GradientTape() as tape:
            logits = tf.reshape(x, (-1, 768)) @ kernel
            loss = tf.reduce_sum(objective(logits, y, taught))
        context = tf.distribute.get_replica_context()
        return context.all_reduce("sum", tape.gradient(loss, kernel))

    run = tf.function(lambda x, y: strategy.run(step, (x, y)))
    replicas = strategy.experimental_local_results(run(shards(x), shards(y)))
    assert len(replicas) == 2
    found.append(replicas[1])
""",
    "jax": """
import jax
path, saved_model = paths
teacher = open_teacher(path, **student)

@jax.jit
def run(variables, kernel, x, y):
    def loss(kernel):
        logits = x.reshape(-1, 768) @ kernel
        pairs = zip(teacher.model.variables, variables)
        with keras.StatelessScope(state_mapping=list(pairs)):
            taught = teacher(x)
        return objective(logits, y, taught).sum()
    return jax.grad(loss)(kernel)

values = [v.value for v in teacher.model.variables]
found = [run(values, np.full((768, 5), 0.01, "float32"), x, y)]
try:
    open_teacher(saved_model, **student)
except Stop as stop:
    assert "pass a .keras file" in str(stop), stop
else:
    raise AssertionError("a SavedModel in a JAX step")
""",
}


@pytest.mark.long
@pytest.mark.parametrize("backend", STEPS)
def test_within_a_step(backend, model, tmp_path):
    if backend == "jax":
        pytest.importorskip("jax")
    images, targets = draw(4, SIZE, SIZE, 3, scale=1.0), softmax(draw(4, CLASSES))
    np.savez(tmp_path / "batch.npz", x=images, y=targets)
    paths = [save(model, form, tmp_path) for form in ("keras", "saved_model")]
    code = BEFORE + STEPS[backend] + "np.save(result, np.array(found))"
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            tmp_path / "batch.npz",
            *paths,
            tmp_path / "g.npy",
        ],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    # By hand: d CE / d logits = p - y, d T² KL / d logits = T (p_T - q_T).
    flat = images.reshape(4, -1).astype("float64")
    logits = flat @ np.full((flat.shape[1], CLASSES), 0.01)
    taught = np.asarray(model(images, training=False), "float64")
    slope = 0.5 * (softmax(logits) - targets)
    slope += 0.5 * 2 * (softmax(logits / 2) - softmax(taught / 2))
    expected = flat.T @ slope
    for found in np.load(tmp_path / "g.npy"):
        np.testing.assert_allclose(found, expected, atol=1e-5 * abs(expected).max())
