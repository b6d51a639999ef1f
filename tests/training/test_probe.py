"""Probing: votes and penalties by hand, the command on a network of our own."""

import functools
import json
import math
import re

import keras
import numpy as np
import pytest
from commands import run_main
from image_folders import truncate, write_folder
from sklearn.linear_model import LogisticRegression

import kmlp
from kmlp.commands import probe
from kmlp.data.decode import centre_crop, normalise
from kmlp.data.sources import open_source
from kmlp.preprocessing import Preprocessing
from kmlp.training import feature_classifiers

SIZE = 16
MEAN, STD = (0.3, 0.3, 0.3), (0.4, 0.4, 0.4)


def votes_by_hand(query, memory, labels, classes, k):
    """One query's votes, after the papers' words, in Python's numbers."""
    length = math.sqrt(sum(x * x for x in query))
    near = []
    for index, row in enumerate(memory):
        product = sum(float(a) * float(b) for a, b in zip(query, row))
        norm = length * math.sqrt(sum(float(b) ** 2 for b in row))
        near.append((-(product / norm if norm else 0.0), index))
    votes = [0.0] * classes
    for similarity, index in sorted(near)[:k]:
        votes[labels[index]] += math.exp(-similarity / 0.07)
    return votes


def all_votes(queries, memory, labels, classes, counts):
    pair = (
        feature_classifiers.normalise(x.astype("float32")) for x in (queries, memory)
    )
    blocks = list(feature_classifiers.votes(*pair, labels, classes, counts))
    return {k: np.concatenate([block[k] for block in blocks]) for k in counts}


@pytest.mark.parametrize("sizes", [(256, 65_536), (3, 7)])
@pytest.mark.parametrize("kind", ["random", "ties"])
def test_votes_are_those_by_hand(kind, sizes, monkeypatch):
    monkeypatch.setattr(feature_classifiers, "QUERIES", sizes[0])
    monkeypatch.setattr(feature_classifiers, "MEMORIES", sizes[1])
    random = np.random.default_rng(0)
    if kind == "random":
        queries, memory = random.normal(size=(10, 6)), random.normal(size=(40, 6))
    else:  # along the axes or nowhere, so that similarities are 1, 0 or -1
        axes = np.concatenate([np.eye(4), -2 * np.eye(4), np.zeros((1, 4))])
        queries = 3 * axes[random.integers(0, 8, 10)]
        memory = axes[random.integers(0, 9, 40)]
    labels = random.integers(0, 5, 40)
    counts = (1, 6, 20, 40)
    found = all_votes(queries, memory, labels, 5, counts)
    for k in counts:
        expected = [votes_by_hand(q, memory, labels, 5, k) for q in queries]
        np.testing.assert_allclose(found[k], expected, rtol=3e-5)


def test_the_nearest_of_equals_come_in_order():
    values = np.array([[0, 1, 1, 0, 1, 1], [2, 2, 2, 2, 2, 3]], "float32")
    np.testing.assert_array_equal(
        feature_classifiers.largest(values, 3), [[1, 2, 4], [0, 1, 5]]
    )


def test_linear_is_scikit_learns_on_standardised_features():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 2, 3], 40)
    centres = 4 * random.normal(size=(4, 5))
    values = (centres[labels] + 0.3 * random.normal(size=(120, 5))) * 10 + 100
    model, chosen = feature_classifiers.fit(values, labels, strengths=(0.01, 1.0))
    assert (chosen["held_out_top1"], chosen["converged"]) == (1.0, True)
    assert chosen["C"] == 0.01  # of equals the strongest penalty
    outputs = feature_classifiers.outputs(model, values[::3], 4)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    reference = LogisticRegression(C=0.01, max_iter=1000).fit(standard, labels)
    expected = reference.predict_proba(standard[::3])
    np.testing.assert_allclose(outputs[:, [0, 2, 3]], expected, atol=1e-6)
    assert not outputs[:, 1].any()
    assert (outputs.argmax(axis=1) == labels[::3]).all()


def test_the_penalty_is_the_best_on_images_held_out():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 400)
    values = random.normal(size=(400, 200))
    values[:, 0] += 2 * labels  # one feature that tells, among noise
    tried = []
    _, chosen = feature_classifiers.fit(values, labels, said=tried.append)
    shares = [float(re.search(r"([\d.]+)% of", line)[1]) for line in tried]
    assert len(shares) == len(feature_classifiers.STRENGTHS)
    assert chosen["C"] == feature_classifiers.STRENGTHS[shares.index(max(shares))] < 1
    assert max(shares) > shares[-1]
    # Too few for a tenth that shows anything.
    assert feature_classifiers.fit(values[:2], [0, 1])[1]["held_out_top1"] is None


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    model = kmlp.create_model(
        "resmlp_s12",
        10,
        (SIZE, SIZE, 3),
        **{"patch_size": 4, "width": 12, "depth": 1},
    )
    model.preprocessing = Preprocessing(
        mean=MEAN,
        std=STD,
        image_size=SIZE,
        test_crop=1.0,
        test_interpolation="bilinear",
        class_names=tuple("abcdefghij"),
    )
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape) * 0.3)
    return model


@pytest.fixture(scope="module")
def preset(network, tmp_path_factory):
    return network.save_preset(tmp_path_factory.mktemp("preset") / "mine")


run = functools.partial(run_main, probe.main)


def probed(capfd, tmp_path, *arguments):
    """The result as JSON."""
    file = tmp_path / "result.json"
    code, output, error = run(capfd, *arguments, "--json", file)
    assert (code, error) == (0, "")
    result = json.loads(file.read_text())
    for row in result["results"]:
        assert f"top-1 {row['top1']:.2%}, top-5 {row['top5']:.2%}" in output
    return result


def features_by_hand(network, split):
    """What the classifier sees of a split's images, by the network's parts."""
    read = split.store.reader()
    pairs = [read(index) for index in range(split.count)]
    images = np.stack(
        [normalise(centre_crop(x, SIZE, 1.0, "bilinear"), MEAN, STD) for x, _ in pairs]
    )
    trunk = keras.Model(network.inputs, network.get_layer("head").input)
    norm = network.get_layer("head").normalize
    found = np.asarray(trunk(images)) * np.asarray(norm.alpha) + np.asarray(norm.beta)
    return found.mean(axis=(1, 2)), np.array([int(label) for _, label in pairs])


def test_digits_by_neighbours(network, preset, tmp_path, capfd):
    arguments = (preset, "--data", "digits", "--method", "knn", "--k", "1", "20")
    result = probed(capfd, tmp_path, *arguments, "--images", "40")
    source = open_source(None)
    memory, labels = features_by_hand(network, source.train)
    queries, truth = features_by_hand(network, source.validation)
    truth_order = np.argsort(truth, kind="stable")
    some = truth_order[np.linspace(0, len(truth) - 1, 40).round().astype(int)]
    assert [row["k"] for row in result["results"]] == [1, 20]
    for row in result["results"]:
        votes = all_votes(queries[some], memory, labels, 10, [row["k"]])[row["k"]]
        order = np.argsort(-votes, axis=1, kind="stable")
        right = order == truth[some][:, None]
        assert row["images"] == 40
        assert row["top1"] == right[:, 0].mean()
        assert row["top5"] == right[:, :5].any(axis=1).mean()
    assert (result["training_images"], result["architecture"]) == (1437, "resmlp_s12")
    assert (result["mean"], result["image_size"]) == (list(MEAN), SIZE)


def test_digits_linearly_from_kept_features(preset, tmp_path, capfd, monkeypatch):
    kept = tmp_path / "features.npz"
    arguments = ("--data", "digits", "--train-images", "200", "--features", kept)
    linearly = (*arguments, "--method", "linear")
    first = probed(capfd, tmp_path, preset, *linearly)
    (row,) = first["results"]
    assert row["top1"] > 0.5  # of ten classes
    assert row["C"] in feature_classifiers.STRENGTHS
    monkeypatch.setattr("kmlp.training.probing.computed", lambda *_, **__: 1 / 0)
    assert probed(capfd, tmp_path, preset, *linearly) == first
    assert run(capfd, preset, *arguments, "--method", "knn")[0] == 0
    # Other images, and then no features at all.
    code, _, error = run(capfd, preset, *linearly, "--images", "7")
    assert code == 2
    assert "validation_images differ" in error
    kept.write_bytes(kept.read_bytes()[:-100])
    code, _, error = run(capfd, preset, *linearly)
    assert code == 2
    assert "damaged" in error
    assert "\n" not in error


def test_another_size_and_other_statistics(preset, tmp_path, capfd):
    arguments = (preset, "--data", "digits", "--method", "knn", "--train-images", "50")
    larger = (*arguments, "--images", "20", "--image-size", "32", "--mean", "0,0,0")
    for resolution in ("interpolate", "partition"):
        result = probed(capfd, tmp_path, *larger, "--resolution", resolution)
        assert result["image_size"] == 32
        assert (result["mean"], result["std"]) == ([0, 0, 0], list(STD))


def test_a_folder_with_an_image_that_cannot_be_read(preset, tmp_path, capfd):
    folder = write_folder(tmp_path / "images")
    truncate(folder / "train/dog/1.jpg")
    arguments = (preset, "--data", folder, "--method", "knn", "--k", "2")
    code, _, error = run(capfd, *arguments)
    assert code == 2
    assert str(folder / "train/dog/1.jpg") in error
    result = probed(capfd, tmp_path, *arguments, "--on-corrupt", "skip")
    assert result["results"][0]["images"] == 6


# Case -> (arguments after WEIGHTS, words). FOLDER and FILE are filled in.
KNN = ("--data", "digits", "--method", "knn")
BAD_INPUT = {
    "no weights": ("FOLDER/no", KNN, "does not exist"),
    "no run": ("FOLDER", KNN, "trained.keras"),
    "no file of weights": ("FILE", KNN, "FILE"),
    "tag without arch": ("fb_dino", KNN, "fb_dino"),
    "another arch": ("PRESET", (*KNN, "--arch", "resmlp_s24"), "resmlp_s12"),
    "no method": ("PRESET", ("--data", "digits"), "--method"),
    "no data": ("PRESET", ("--data", "FOLDER/no", "--method", "knn"), "not exist"),
    "too many neighbours": (
        "PRESET",
        (*KNN, "--train-images", "10", "--k", "5", "11"),
        "choose k of at most",
    ),
    "neighbours of linear": (
        "PRESET",
        ("--data", "digits", "--method", "linear", "--k", "5"),
        "--k goes with --method knn",
    ),
    "size": ("PRESET", (*KNN, "--image-size", "4"), "at least 8"),
    "result": ("PRESET", (*KNN, "--json", "FOLDER/no/result"), "--json"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input(case, preset, tmp_path, capfd, monkeypatch):
    weights, arguments, words = BAD_INPUT[case]
    empty, file = tmp_path / "empty", tmp_path / "file.pth"
    empty.mkdir()
    file.write_text("no weights")
    names = {"FOLDER": empty, "FILE": file, "PRESET": preset}

    def filled(text):
        for name, path in names.items():
            text = text.replace(name, str(path))
        return text

    stop = lambda *_, **__: pytest.fail("computed")  # noqa: E731
    monkeypatch.setattr("kmlp.training.probing.computed", stop)
    code, _, error = run(capfd, filled(weights), *map(filled, arguments))
    assert code == 2
    assert filled(words) in error
    assert "\n" not in error
