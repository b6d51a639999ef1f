"""Studies: NumPy's images against TensorFlow's, every backend, runs in pieces."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import study_jobs
import tensorflow as tf
from cases import few
from commands import run_main
from image_folders import DAMAGES, damage, write_folder, write_image
from scipy import stats
from study_jobs import COMMAND, STUDY

from kmlp.analysis.complexity import shapes_only
from kmlp.commands import train
from kmlp.data.images import Memory, Source, Split
from kmlp.data.reading import evaluation_batches
from kmlp.errors import InputError, KmlpError
from kmlp.recipes import ClassificationRecipe as Recipe
from kmlp.training.input import array_batches, order
from kmlp.training.input import arrays as packing
from kmlp.training.input.array_batches import ahead
from kmlp.training.input.pipeline import square
from kmlp.training.input.pipeline import training_batches as expected_batches
from kmlp.training.studies import study

ROOT = Path(__file__).parents[2]
JOBS = Path(study_jobs.__file__)
CLASSES = ("cat", "dog", "owl")
RECIPE = Recipe(
    name="test",
    batch_size=8,
    learning_rate=1.0,
    image_size=16,
    crop="pad",
    label_smoothing=0.1,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.25),
)


def pixels(count, size=16, seed=0):
    shape = (count, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def arrays(count, seed=0):
    labels = np.arange(count, dtype="int32") % len(CLASSES)
    return pixels(count, seed=seed), labels


def test_random_numbers_are_those_of_tensorflow():
    positions = np.array([0, 1, 77, 2**40])
    for seed in (0, 1, 2**32 - 1):
        own = order.bits(seed, order.SAMPLE, positions, 3)
        theirs = order.bits(seed, order.SAMPLE, tf.constant(positions, tf.int64), 3)
        np.testing.assert_array_equal(own, theirs)
        np.testing.assert_array_equal(order.uniform(own), order.uniform(theirs))
        np.testing.assert_array_equal(
            order.permutation(seed, 3, 100),
            order.permutation(seed, tf.constant(3, tf.int64), 100),
        )


@pytest.mark.parametrize(
    "changes",
    [{}, {"crop": "none", "flip": 0.0}, {"repeats": 2, "label_smoothing": 0.0}],
    ids=str,
)
def test_training_batches_are_those_of_tensorflow(changes):
    recipe = RECIPE.__class__(**{**vars(RECIPE), **changes})
    images, labels = arrays(43)
    split = Split("test", Memory(images, labels))
    # The second of five steps, and into the next epoch.
    options = {"batch_size": 4, "global_batch": 8, "start_step": 2, "seed": 5}
    theirs = expected_batches(
        Source("test", CLASSES, split, split), recipe, image_size=16, **options
    )
    own = array_batches.training_batches(images, labels, recipe, classes=3, **options)
    shown = [next(own) for _ in range(10)]
    own.close()
    for (image, target), (other, wanted) in zip(
        shown, theirs.take(10).as_numpy_iterator(), strict=True
    ):
        np.testing.assert_allclose(image, other, rtol=0, atol=2e-6)
        np.testing.assert_allclose(target, wanted, rtol=0, atol=1e-7)


def test_validation_batches_are_those_of_tensorflow():
    images, labels = arrays(11)
    split = Split("test", Memory(images, labels))
    theirs = evaluation_batches(split, RECIPE, image_size=16, batch_size=4, replicas=2)
    own = list(array_batches.validation_batches(images, labels, RECIPE, 4, 2))
    for batch, other in zip(own, theirs.as_numpy_iterator(), strict=True):
        for array, wanted in zip(batch, other, strict=True):
            assert array.dtype == wanted.dtype
            np.testing.assert_allclose(array, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "field", [{"crop": "resized"}, {"mixup": 0.2}, {"policy": "rand-m9"}], ids=str
)
def test_what_is_not_made_in_memory_is_refused(field):
    with pytest.raises(KmlpError, match=f"{next(iter(field))}="):
        array_batches.check(RECIPE.__class__(**{**vars(RECIPE), **field}))


def test_work_ahead():
    entries = ahead(range(20), depth=2)
    assert [next(entries) for _ in range(5)] == list(range(5))
    entries.close()
    with pytest.raises(StopIteration):
        next(entries)

    def failing():
        yield 1
        raise OSError("gone")

    entries = ahead(failing())
    assert next(entries) == 1
    with pytest.raises(OSError, match="gone"):
        next(entries)


# Packing.


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    for split, count in (("train", 5), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for index in range(count):
                kind = "jpg" if index % 2 else "png"
                path = root / split / name / f"{index}.{kind}"
                write_image(path, size=(16, 16), seed=10 * label + index)
    return root


def test_an_image_folder_is_packed_once(folder, tmp_path, capsys):
    packed = packing.open_packed(folder, 16, tmp_path / "packed")
    assert packed.class_names == CLASSES
    assert packed.train_labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert packed.test_images.shape == (6, 16, 16, 3)
    for label, index, kind in ((0, 0, "png"), (2, 3, "jpg")):
        content = (folder / "train" / CLASSES[label] / f"{index}.{kind}").read_bytes()
        decode = tf.io.decode_jpeg if kind == "jpg" else tf.io.decode_png
        more = {"dct_method": "INTEGER_ACCURATE"} if kind == "jpg" else {}
        np.testing.assert_array_equal(
            packed.train_images[5 * label + index], decode(content, 3, **more)
        )
    (path,) = (tmp_path / "packed").iterdir()
    assert "Packing 21 images" in capsys.readouterr().out
    # What was packed is found again, here and under its own name.
    for spec in (folder, path):
        again = packing.open_packed(spec, 16, tmp_path / "packed")
        assert again.content == packed.content
        np.testing.assert_array_equal(again.train_images, packed.train_images)
    assert "Packing" not in capsys.readouterr().out
    part = packed.part(7, 3)
    assert part.train_labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(part.train_images[2], packed.train_images[5])
    # Another image is another folder.
    write_image(folder / "train/cat/0.png", size=(16, 16), seed=99)
    changed = packing.open_packed(folder, 16, tmp_path / "packed")
    assert changed.content != packed.content


# A checksum, or a method of compression that there is not.
PLACES = {
    "an array": lambda raw: (len(raw) // 2, 1),
    "the directory": lambda raw: (raw.index(b"PK\x01\x02") + 10, 64),
}


@pytest.mark.parametrize("place", PLACES)
def test_damaged_packed_images_are_packed_again(place, folder, tmp_path, capsys):
    packed = packing.open_packed(folder, 16, tmp_path / "packed")
    (path,) = (tmp_path / "packed").iterdir()
    content = bytearray(path.read_bytes())
    index, bit = PLACES[place](content)
    content[index] ^= bit
    path.write_bytes(content)
    again = packing.open_packed(folder, 16, tmp_path / "packed")
    assert "damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(again.train_images, packed.train_images)
    path.write_bytes(content)
    with pytest.raises(KmlpError, match="cannot be read"):
        packing.open_packed(path, 16, tmp_path / "packed")


def test_images_of_other_sizes_are_resized(folder, tmp_path, capsys):
    write_image(folder / "train/cat/0.png", size=(40, 31), seed=1)
    packed = packing.open_packed(folder, 16, tmp_path)
    assert "Brought 1 image of another size to 16x16" in capsys.readouterr().out
    content = (folder / "train/cat/0.png").read_bytes()
    wanted = square(tf.constant(content), 16, "bilinear").numpy().astype(int)
    # Pillow rounds between its two passes.
    assert np.abs(packed.train_images[0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("reason", DAMAGES)
def test_images_that_cannot_be_decoded(reason, folder, tmp_path, capsys):
    path = damage(folder / "train/dog", reason)
    with pytest.raises(KmlpError, match=f"1 image cannot be decoded.*{path.name}"):
        packing.open_packed(folder, 16, tmp_path / "packed")
    packed = packing.open_packed(folder, 16, tmp_path / "packed", "skip")
    assert len(packed.train_labels) == 15
    assert f"Skipped 1 image: {path}" in capsys.readouterr().out


def test_a_disk_that_is_full(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(KmlpError, match=r"cannot be written.*No space left"):
        packing.open_packed(folder, 16, tmp_path / "packed")
    assert not list((tmp_path / "packed").glob("*.npz"))


def test_arrays_of_others(tmp_path):
    images, labels = arrays(9)
    names = dict(zip(packing.OTHERS, (images, labels[:, None], images, labels)))
    np.savez(tmp_path / "cifar.npz", **names)
    packed = packing.open_packed(tmp_path / "cifar.npz", 16, tmp_path)
    assert packed.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(packed.train_labels, labels)
    with pytest.raises(KmlpError, match="16x16 pixels, the recipe 32x32"):
        packing.open_packed(tmp_path / "cifar.npz", 32, tmp_path)
    for name, wrong in (("y_train", labels[1:]), ("x_test", images / 255)):
        np.savez(tmp_path / "bad.npz", **names | {name: wrong})
        with pytest.raises(KmlpError, match="cannot be read"):
            packing.open_packed(tmp_path / "bad.npz", 16, tmp_path)
    with pytest.raises(KmlpError, match="does not exist"):
        packing.open_packed(tmp_path / "gone.npz", 16, tmp_path)


# The table.


def result_of(name, top1):
    return {
        "row": name,
        "top1": top1,
        "merged_top1": top1,
        "parameters": 7_144_292,
        "macs": 1_812_751_360,
        "images_per_second": 1234.5,
        "peak_share": 0.125,
    }


def test_the_papers_figures_stand_beside_ours(tmp_path):
    found = study.find(STUDY, "full")
    assert [row.name.rpartition("/")[2] for row in found.rows] == [
        f"{network}_{kernels}"
        for network in ("resmlp", "repmlpnet")
        for kernels in ("none", "1x1", "3x3", "both")
    ]
    values = dict(zip([row.name for row in found.rows], (50, 52, 51, 58, 60, 61, 62)))
    results = {name: {3: result_of(name, top1)} for name, top1 in values.items()}
    lines = found.text(results).splitlines()
    shown = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    speed = ["1,234", "12.5%"]
    counts = ["1", "7,144,292", "7.1", "M", "1,812.8", "1,812"]
    assert shown["resmlp_none"] == ["55.58", "50.00", "50.00", *counts, *speed]
    # 65.09 - 55.58, and 58 - 50
    assert shown["resmlp_both"][:5] == ["65.09", "58.00", "+9.51", "+8.00", "58.00"]
    assert shown["repmlpnet_1x1"][:4] == ["60.73", "61.00", "+1.66", "+1.00"]
    assert shown["repmlpnet_both"] == ["67.43", "+8.36"]
    assert found.orderings(results) == [
        "resmlp_12_cifar: resmlp_none < resmlp_3x3 < resmlp_1x1 < resmlp_both; paper: "
        "resmlp_none < resmlp_1x1 < resmlp_3x3 < resmlp_both"
    ]
    found.write(results, tmp_path, {"data": "none"})
    assert (tmp_path / "table.md").read_text().splitlines()[4].startswith("| resmlp_no")
    written = json.loads((tmp_path / "table.json").read_text())
    assert written["rows"][3]["gain"] == 8
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 9


def test_gains_are_counted_seed_by_seed(tmp_path):
    found = study.find(STUDY, "full", ["resmlp_none", "resmlp_both"])
    rows = [row.name for row in found.rows]
    # Seed 7 of the one and 9 of the other are alone.
    scores = ({1: 10, 2: 20, 3: 30, 7: 90}, {1: 11, 2: 22, 3: 36, 9: 0})
    results = {
        name: {seed: result_of(name, top1) for seed, top1 in own.items()}
        for name, own in zip(rows, scores)
    }
    first, second = found.lines(results)
    assert (first["top1"], first["seeds"], first["gain"]) == (37.5, 4, None)
    # Student's 3.182 times 35.94 / √4, and 4.303 times 2.646 / √3.
    assert first["top1_interval"] == pytest.approx(57.18, rel=1e-3)
    assert second["gain"] == 3  # of 1, 2 and 6
    assert second["gain_interval"] == pytest.approx(6.572, rel=1e-3)
    assert "+3.00 ± 6.57" in found.text(results)
    found.write(results, tmp_path, {"data": "none"})
    assert "+3.00 ± 6.57" in (tmp_path / "table.md").read_text()
    header, _, line = (tmp_path / "table.csv").read_text().splitlines()
    assert dict(zip(header.split(","), line.split(",")))["gain"] == "3.0"
    turned = study.find(STUDY, "full", ["resmlp_none", "resmlp_both"], "resmlp_both")
    assert [line["gain"] for line in turned.lines(results)] == [-3, None]


SCALED = ("repmlpnet/table3", STUDY, "convmlp/table2", "resmlp/table4")
SCALED += ("msmlp/table9", "msmlp/table13")
SCALED += ("smlpnet/table1", "smlpnet/table3", "smlpnet/table4")
QUICK = {"repmlpnet": 3, "convmlp": 2, "resmlp": 4, "msmlp": 9, "smlpnet": 1}


@pytest.mark.parametrize(
    "name", few(SCALED, *(f"{paper}/table{n}" for paper, n in QUICK.items()))
)
def test_scaled_rows_are_the_tables_networks_made_smaller(name):
    found = study.find(name, "cpu")
    assert found.rows == study.find(name, "smoke").rows
    built = []
    for row in found.rows:
        family, arguments = found.arguments(row)
        own = found.scale.networks.get(row.name, {})
        for key, value in row.arguments.items():
            assert arguments[key] == own.get(key, value), (row.name, key)
        shape = {"num_classes": 10, "input_shape": (32, 32, 3)}
        with shapes_only():
            model = family(**{**arguments, **shape})
        config = {k: v for k, v in model.get_config().items() if k != "name"}
        assert config not in built, row.name
        built.append(config)
        assert model.count_params() < 2e6
    assert len(built) > 2
    with pytest.raises(InputError, match="no smaller networks for smlpnet_b"):
        study.find("smlpnet/table2", "cpu")


# The command.


@pytest.mark.parametrize(
    ("arguments", "words"),
    {
        "no data": (["--study", STUDY], "needs --data"),
        "no study": (["--minutes", "3"], "--minutes goes with --study"),
        "unknown": (
            ["--study", "repmlpnet/table5", "--data", "x"],
            "choose repmlpnet/table4",
        ),
        "scale": (
            ["--study", STUDY, "--scale", "huge", "--data", "x"],
            "'full', 'smoke', 'cpu'",
        ),
        "rows": (
            ["--study", STUDY, "--rows", "repmlpnet_nil", "--data", "x"],
            "choose repmlpnet_none",
        ),
        "against": (
            ["--study", STUDY, "--rows", "repmlpnet_both", "--against", "resmlp_none"],
            "Unknown row to train",
        ),
        "seeds": (["--study", STUDY, "--seeds", "1,1", "--data", "x"], "'1,1'"),
        "arch": (["--study", STUDY, "--arch", "resmlp_s12"], "--arch does not go"),
        "teacher": (["--study", STUDY, "--teacher", "x"], "--teacher does not go"),
        "field": (
            ["--study", STUDY, "--data", "x", "--set", "colour=1"],
            "Unknown field",
        ),
        "gone": (["--study", STUDY, "--data", "x/y"], "does not exist"),
        "mixing": (
            [*COMMAND, "--data", "DATA", "--set", "mixup=0.2"],
            "Images in memory are shifted and mirrored",
        ),
        "batch": (
            [*COMMAND, "--data", "DATA", "--batch-size", "64"],
            "lower batch_size",
        ),
    }.values(),
    ids=lambda value: None,
)
def test_bad_input(arguments, words, tmp_path, capfd, monkeypatch, images):
    study_jobs.shrink(monkeypatch.setattr)
    arguments = [images if a == "DATA" else a for a in arguments]
    output = ["--output", tmp_path, "--logs", tmp_path / "logs"]
    code, _, error = run_main(train.main, capfd, *arguments, *output)
    assert code == 2
    assert words in error
    assert len(error.splitlines()) == 1


def test_the_studies_are_listed(capfd):
    code, output, _ = run_main(train.main, capfd, "--study", "list")
    assert code == 0
    found = re.search(r"^repmlpnet/table4 +8 rows", output, re.MULTILINE)
    assert found


# Backends.


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    return write_folder(root, classes=CLASSES, splits=("train", "test"), count=8)


@pytest.fixture(scope="module")
def found(images, tmp_path_factory):
    """What came of the same studies on each backend that there is."""
    folder = tmp_path_factory.mktemp("studies")
    # A machine with nothing but Keras, its backend, NumPy and Pillow.
    for name in ("tensorflow", "tensorflow_datasets", "tensorboard", "tqdm"):
        (folder / f"{name}.py").write_text("raise ImportError")
    with pytest.MonkeyPatch.context() as patch:
        study_jobs.shrink(patch.setattr)
        outputs = folder / "tensorflow"
        results = {
            "tensorflow": {
                "losses": study_jobs.first_losses(folder, images),
                "whole_code": study_jobs.studied(images, outputs / "whole"),
                "codes": study_jobs.pieces(images, outputs / "pieces"),
                "whole": study_jobs.outcome(outputs / "whole"),
                "pieces": study_jobs.outcome(outputs / "pieces"),
            }
        }
    started = {}
    for backend in ("jax", "torch"):
        if importlib.util.find_spec(backend) is None:
            continue
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(folder),
            # XLA takes seconds for what runs for milliseconds: it does less, and once.
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        if backend == "torch":
            # There, but not to be imported.
            environment["PYTHONPATH"] = ""
        with open(folder / f"{backend}.log", "w") as log:
            started[backend] = subprocess.Popen(
                [sys.executable, str(JOBS), str(folder), str(images), "repmlpnet_both"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    for backend, process in started.items():
        assert process.wait(300) == 0, (folder / f"{backend}.log").read_text()
        results[backend] = json.loads((folder / f"{backend}.json").read_text())
    results["folder"] = folder
    return results


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_study_in_pieces_is_that_in_one(backend, found):
    if backend not in found:
        pytest.skip(f"{backend} is not installed")
    own = found[backend]
    assert own["whole_code"] == 0
    # Paused by the clock; killed within a row and when one was kept; finished.
    assert own["codes"] == [0, 130, 130, 0]
    assert len(own["whole"]) == (2 if backend == "tensorflow" else 1)
    assert own["pieces"] == own["whole"]
    for result in own["whole"].values():
        assert len(result["history"]) == 2
        assert result["merged_difference"] < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_take_the_same_steps(backend, found):
    if backend not in found:
        pytest.skip(f"{backend} is not installed")
    assert not found[backend]["tensorflow"]
    expected = found["tensorflow"]["losses"]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found[backend]["losses"], expected, rtol=0, atol=1e-4)


@pytest.mark.long
def test_a_finished_study_is_read_back(images, found, capfd, monkeypatch):
    study_jobs.shrink(monkeypatch.setattr)
    output = found["folder"] / "tensorflow/whole"
    arguments = [*COMMAND, "--data", images, "--output", output]
    arguments += ["--logs", output / "logs"]
    code, shown, _ = run_main(train.main, capfd, *arguments)
    assert code == 0
    assert shown.count(", finished 20") == 2
    result = found["tensorflow"]["whole"][f"{STUDY}/repmlpnet_both"]
    assert re.search(rf"^repmlpnet_both +67\.43 +{result['top1']:.2f} ", shown, re.M)
    # Another seed is another run: it begins anew, and is paused after one step.
    code, shown, _ = run_main(
        train.main, capfd, *arguments, "--seed", 1, "--minutes", 0
    )
    assert code == 0
    assert "after step 1 of 6" in shown
    assert "0 of 2 rows are finished; the same command goes on" in shown
    # Every seed has its result, and the table those of all, whichever is asked for.
    code, shown, _ = run_main(train.main, capfd, *arguments, "--seeds", "0,1")
    assert code == 0
    assert shown.count(", finished 20") == 2
    assert "\nrepmlpnet_both, seed 1: top-1" in shown
    damaged = output / "logs/repmlpnet_table4-tiny/rows/repmlpnet_none/seed7-0.json"
    damaged.write_text("{")
    code, shown, error = run_main(
        train.main, capfd, *arguments, "--seed", 1, "--rows", "repmlpnet_none"
    )
    assert code == 0
    assert shown.count(", finished 20") == 1
    assert error.startswith(f"left out {damaged}: ")
    (folder,) = (output / "logs").iterdir()
    lines = json.loads((folder / "table.json").read_text())["rows"]
    assert [line["seeds"] for line in lines] == [2, 2]
    assert lines[1]["gain_interval"] >= 0
    assert (folder / "table.md").read_text().count(" ± ") == 5


def test_throughput_alone(tmp_path, capfd, monkeypatch):
    study_jobs.shrink(monkeypatch.setattr, ("repmlpnet_both",))
    arguments = [*COMMAND, "--throughput", "--output", tmp_path]
    arguments += ["--logs", tmp_path / "logs"]
    code, _, error = run_main(train.main, capfd, *arguments)
    assert code == 0, error
    (path,) = tmp_path.rglob("throughput.json")
    written = json.loads(path.read_text())
    assert len(written["rows"]) == 1
    for row in written["rows"]:
        # A forward pass and its gradients: six operations to a multiply-add.
        operations = 6 * row["macs"] * 8 / (row["step_ms"] / 1000)
        share = operations / row["peak_flops"]
        assert row["peak_share"] == pytest.approx(share)
        assert row["peak_share"] > 0


def _readme_claims():
    """Rows of README's table of claims: what is claimed, two rows, four cells."""
    text = (ROOT / "README.md").read_text("utf-8")
    section = text.split("### What was shown, and what was not")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines[1:]]


def _by_seed(row, figure):
    """A figure of a row of the committed results, by its seed."""
    (folder,) = (ROOT / "training/logs/studies").glob(f"*-cpu/rows/{row}")
    results = [json.loads(p.read_text("utf-8")) for p in folder.glob("seed*.json")]
    return {result["identity"]["seed"]: result[figure] for result in results}


@pytest.mark.parametrize(
    "claim", _readme_claims(), ids=lambda claim: f"{claim[1]}-{claim[2]}"
)
def test_readme_says_what_the_committed_rows_say(claim):
    """By SciPy's paired test, and the rule that was written down before the runs."""
    _, row, baseline, seeds, *cells, verdict = claim
    for figure, cell in zip(("top1", "merged_top1"), cells, strict=True):
        ours, theirs = _by_seed(row, figure), _by_seed(baseline, figure)
        both = sorted(ours.keys() & theirs.keys())
        assert both == list(range(int(seeds)))
        pairs = [[found[seed] for seed in both] for found in (ours, theirs)]
        low, high = stats.ttest_rel(*pairs).confidence_interval(0.95)
        assert cell == f"{(low + high) / 2:+.2f} ± {(high - low) / 2:.2f}"
        held = "holds" if low > 0 else "fails" if high < 0 else "undecided"
        assert verdict == held
