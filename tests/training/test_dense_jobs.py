"""The commands that train detectors and segmenters, on the smallest networks."""

import functools
import json
from types import SimpleNamespace

import cases
import numpy as np
import pytest
from commands import run_main
from dense_folders import write_ade20k, write_cityscapes, write_coco
from PIL import Image

import kmlp
from kmlp.artifacts import origin
from kmlp.artifacts.running import load_saved_model
from kmlp.commands.train import DETECTOR as train_detector
from kmlp.commands.train import SEGMENTER as train_segmenter
from kmlp.data.dense import open_dense
from kmlp.data.pictures import Unreadable
from kmlp.data.scoring import average_precision, truth
from kmlp.preprocessing import DensePreprocessing
from kmlp.training.tasks import dense_task

CONVMLP = [
    "model.stem_width=8",
    "model.conv_blocks=1",
    "model.widths=8,16,16",
    "model.depths=1,1,1",
]
REPMLPNET = [
    "model.widths=4,8,8,8",
    "model.share_sets=1,2,2,2",
    "model.depths=1,1,1,1",
    "model.block_size=8,8",
]
SMALL = [f"head_arguments.{name}" for name in ("fpn_filters=8", "max_detections=10")]
TWO_STAGE = [
    *SMALL,
    "head_arguments.fc_units=8",
    "head_arguments.mask_convs=1",
    "head_arguments.mask_filters=8",
    "head_arguments.proposals=8",
    "head_arguments.training_proposals=8",
    "head_arguments.roi_samples=8",
]
HEADS = {
    "retinanet": (train_detector, [*SMALL, "head_arguments.head_convs=1"]),
    "mask_rcnn": (train_detector, TWO_STAGE),
    "cascade_mask_rcnn": (train_detector, TWO_STAGE),
    "semantic_fpn": (
        train_segmenter,
        ["head_arguments.fpn_filters=8", "head_arguments.filters=8"],
    ),
    "upernet": (
        train_segmenter,
        ["head_arguments.filters=8", "head_arguments.auxiliary_filters=8"],
    ),
}
COMMON = ["--batch-size", "2", "--epochs", "1", "--set", "warmup_steps=0"]


@pytest.fixture
def few_scenes(monkeypatch):
    few = functools.partial(open_dense, train=4, validation=3)
    monkeypatch.setattr("kmlp.training.tasks.dense_task.open_dense", few)
    monkeypatch.setattr(dense_task, "ROWS", 2)


def run(head, output, capfd, *more, backbone=CONVMLP):
    job, arguments = HEADS[head]
    return run_main(
        job.main,
        capfd,
        *("--head", head, "--output", output, *COMMON, "--set", *backbone),
        *(*arguments, *more),
    )


@pytest.mark.parametrize("head", [cases.long("mask_rcnn"), cases.long("upernet")])
def test_scenes_to_artifacts(head, few_scenes, tmp_path, capfd):
    code, printed, error = run(head, tmp_path, capfd)
    assert (code, error) == (0, "")
    detects = head == "mask_rcnn"
    for text in ("val_mask_AP" if detects else "val_mIoU", "SavedModel", "Published"):
        assert text in printed
    path = tmp_path / f"{head}_convmlp_s" / "1"
    report = json.loads((path / "report.json").read_text())
    forms = ["trained", "merged", "SavedModel"] + ["TFLite"] * (not detects)
    assert list(report["forms"]) == forms
    assert all(form["disagreements"] == 0 for form in report["forms"].values())
    for name in ("trained.keras", "best.keras", "history.csv", "recipe.json"):
        assert (path / name).is_file()
    assert (path / "results.json").is_file() == detects
    assert not list(path.parent.glob("unfinished-*"))
    sheet = Image.open(path / "pictures" / "predictions.png")
    assert sheet.width > 3 * 96
    assert sheet.height > 2 * 96
    # The artifact and the checkpoint are the same network.
    model = kmlp.create_model(weights=path)
    assert type(model).__name__ == ("MaskRCNN" if detects else "UperNet")
    images = np.random.default_rng(0).normal(size=(2, 96, 96, 3)).astype("float32")
    found = load_saved_model(path)(images)
    expected = model(images, training=False)
    if not detects:
        assert np.abs(found["output_0"] - expected).max() < 1e-4
    else:
        assert set(found) == {"boxes", "scores", "classes", "masks"}
        assert np.abs(found["scores"] - np.asarray(expected["scores"])).max() < 1e-5
    known = DensePreprocessing.from_origin(origin.read(path / "trained.keras"))
    assert known == model.preprocessing
    assert known.canvas == (96, 96)
    shapes = ("circle", "square", "triangle")
    assert known.class_names == (shapes if detects else ("background", *shapes))


@pytest.mark.long
@pytest.mark.parametrize("head", ["retinanet", "cascade_mask_rcnn", "semantic_fpn"])
def test_other_heads_and_precision(head, few_scenes, tmp_path, capfd):
    precision = {"retinanet": ["--precision", "bfloat16"]}.get(head, [])
    precision += {"semantic_fpn": ["--xla", "--steps-per-execution", 2]}.get(head, [])
    code, printed, error = run(head, tmp_path, capfd, *precision)
    assert (code, error) == (0, "")
    assert "Published" in printed


FOLDERS = {  # recipe that is implied, its data, arguments
    "coco": ("mask_rcnn", write_coco, ["--recipe", "convmlp_coco_mask_rcnn"]),
    "ade20k": ("semantic_fpn", write_ade20k, []),
    "cityscapes": (
        "upernet",
        write_cityscapes,
        ["--arch", "repmlpnet_t224", "--set", "resize_to=64,32"],
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", FOLDERS)
def test_recipes_on_real_layouts(kind, tmp_path, capfd):
    head, write, more = FOLDERS[kind]
    data = write(tmp_path / "data")
    size = "32x32" if kind == "cityscapes" else "64x64"
    fits = ["short_sides=none", "long_side=none", "max_objects=4", "mask_size=28"]
    fits = fits if kind == "coco" else ["scale_range=1,1"]
    # Counted in epochs by the recipes of COCO, else in steps.
    backbone = REPMLPNET if kind == "cityscapes" else CONVMLP
    code, printed, error = run(
        head,
        tmp_path / "out",
        capfd,
        *("--data", f"{kind}:{data}", "--image-size", size, *more, "--set", *fits),
        backbone=[*backbone, "batch_size=1" if kind == "coco" else "batch_size=2"],
    )
    assert (code, error) == (0, "")
    assert kind in printed.split(":")[0]
    (path,) = (tmp_path / "out").glob("*/1")
    report = json.loads((path / "report.json").read_text())
    row = report["epochs"][-1]
    score = "val_mask_AP" if kind == "coco" else "val_mIoU"
    assert 0 <= row[score] <= 1
    assert np.isfinite(row["loss"])
    if kind == "coco":
        assert "left out" in printed or report["data"]["notes"]


@pytest.mark.long
def test_a_run_that_was_cut_off_goes_on(few_scenes, tmp_path, capfd, monkeypatch):
    from kmlp.training.engine.tensorflow import TensorFlowEngine

    arguments = ["--epochs", 2, "--checkpoint-steps", 1]
    assert run("retinanet", tmp_path / "whole", capfd, *arguments)[0] == 0
    whole = TensorFlowEngine.train

    def failing(engine, iterator, steps):
        if engine.step >= 3:
            raise KeyboardInterrupt
        return whole(engine, iterator, steps)

    monkeypatch.setattr(TensorFlowEngine, "train", failing)
    code, _, error = run("retinanet", tmp_path / "cut", capfd, *arguments)
    assert code == 130
    assert "goes on" in error
    monkeypatch.setattr(TensorFlowEngine, "train", whole)
    code, printed, _ = run("retinanet", tmp_path / "cut", capfd, *arguments)
    assert code == 0
    assert "Going on at step 3 of 4" in printed
    models = [
        kmlp.create_model(weights=tmp_path / name / "retinanet_convmlp_s")
        for name in ("whole", "cut")
    ]
    for one, other in zip(*(model.get_weights() for model in models)):
        assert np.array_equal(one, other)


def test_truth_given_back_is_perfect():
    source = open_dense("scenes", "detection", train=1, validation=4)
    known = truth(source.validation, source)
    results = [{**item, "score": 1.0} for item in known["annotations"]]
    assert average_precision(known, results, masks=True)["mask_AP"] == pytest.approx(1)


BAD = {
    "head of the other task": (
        train_detector,
        ["--head", "upernet"],
        "invalid choice: 'upernet'",
    ),
    "no such architecture": (train_detector, ["--arch", "convmlp_x"], "convmlp_s"),
    "no pyramid": (
        train_segmenter,
        ["--arch", "resmlp_s12"],
        "choose a family of four stages",
    ),
    "no such data": (train_segmenter, ["--data", "coco:here"], "--data takes scenes"),
    "no folder": (train_detector, ["--data", "coco:nowhere"], "nowhere"),
    "field": (train_segmenter, ["--set", "flipp=0"], "choose flip"),
    "head's argument": (
        train_segmenter,
        ["--set", "head_arguments.filtres=8"],
        "choose filters",
    ),
    "recipe": (train_detector, ["--recipe", "convmlp_ade20k"], "Unknown recipe"),
    "size": (train_detector, ["--image-size", "20x"], "HEIGHTxWIDTH"),
    "weights": (train_detector, ["--weights", "nowhere.keras"], "nowhere.keras"),
    "output": (train_segmenter, ["--output", "/dev/null/x"], "--output"),
    "dense": (
        train_detector,
        ["--head", "mask_rcnn", "--dense", "all"],
        "upsample (Conv2DTranspose)",
    ),
    "diverged": (
        train_segmenter,
        ["--set", "learning_rate=1e30", "clip_norm=none", *HEADS["semantic_fpn"][1]],
        "no longer finite",
    ),
}


@pytest.mark.parametrize(
    "case", [cases.long(case) if case == "diverged" else case for case in BAD]
)
def test_bad_input(case, few_scenes, tmp_path, capfd):
    job, arguments, words = BAD[case]
    output = [] if case == "output" else ["--output", tmp_path]
    small = ["--set", "warmup_steps=0", *(CONVMLP if case == "diverged" else ())]
    code, _, error = run_main(
        job.main, capfd, *(*output, *COMMON[:4], *small, *arguments)
    )
    assert code in (1, 2)
    assert words in error
    assert error.count("\n") == 0
    assert not list(tmp_path.glob("*/[0-9]*"))


def test_a_picture_that_cannot_be_used_is_not_drawn(tmp_path):
    """It was skipped in training too, where it may be."""

    class Pictures:
        count = 3

        def image(self, index):
            if index == 0:
                raise Unreadable("0.png", "damaged")
            return np.zeros((8, 8, 3), "uint8")

        def annotation(self, index):
            return Image.new("RGB", (8, 8))

    task = dense_task.DenseTask()
    task.drawer = lambda job, model: lambda image, truth: (truth, truth)
    job = SimpleNamespace(source=SimpleNamespace(validation=Pictures()))
    task.draw(job, None, tmp_path / "pictures")
    written = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert written == {"000001.png", "000002.png", dense_task.SHEET}
