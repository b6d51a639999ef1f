"""The table of published checkpoints against the facts, and the names of classes."""

import ast
import importlib.util
import json
import math
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kmlp
from kmlp.commands import main
from kmlp.data.labelled import class_numbers, read_labels
from kmlp.errors import InputError
from kmlp.weights import downloads
from kmlp.weights.catalogue import (
    PACKAGED,
    WEIGHTS,
    class_names,
    list_unpublished,
    published_weights,
    spellings,
)
from kmlp.weights.downloads import download, sha256_of

ROOT = Path(__file__).parents[2]

# Name: reported top-1 (k-NN of DINO), side that images are resized to, address's end.
SHI, FB, TIMM = "projects/convmlp/checkpoints/", "fbaipublicfiles.com/deit/", "timm/"
FACTS = {
    "repmlpnet_t224.dxh_in1k": (76.62, 224, "1TgPDD78G-d3h_Y_vNTuqYdSJZHmnju7b"),
    "repmlpnet_b224.dxh_in1k": (80.32, 224, "1GwoUvxGXgzKArlCf0V9kvc9_3GtkGltp"),
    "repmlpnet_t256.dxh_in1k": (77.44, 256, "1mU0L76x20eAKzkHxEM7J2BvEOLWx_mux"),
    "repmlpnet_b256.dxh_in1k": (81.03, 256, "1W-__gXE7903cX-gOSXEGxNBCJjvqFCiJ"),
    "repmlpnet_d256.dxh_in1k": (80.83, 256, "1e5IYac0UHnJq2_lzbuE7J4rahMENX2ha"),
    "repmlpnet_l256.dxh_in1k": (81.68, 256, "1SHhNJ6pZax9qMLm8DJZtQ_XfmcmddPYU"),
    "repmlpnet_b224.mm_in1k": (80.41, 256, "8xb64_in1k_20220330-1cb1f11b.pth"),
    "repmlpnet_b256.mm_in1k": (81.11, 292, "8xb64_in1k-256px_20220330-7c5a91ce.pth"),
    "convmlp_s.shi_in1k": (76.8, 248, f"{SHI}convmlp_s_imagenet.pth"),
    "convmlp_m.shi_in1k": (79.0, 248, f"{SHI}convmlp_m_imagenet.pth"),
    "convmlp_l.shi_in1k": (80.2, 248, f"{SHI}convmlp_l_imagenet.pth"),
    "convmlp_s.shi_cifar10": (98.0, 224, f"{SHI}convmlp_s_cifar10.pth"),
    "convmlp_m.shi_cifar10": (98.6, 224, f"{SHI}convmlp_m_cifar10.pth"),
    "convmlp_l.shi_cifar10": (98.6, 224, f"{SHI}convmlp_l_cifar10.pth"),
    "convmlp_s.shi_cifar100": (87.4, 224, f"{SHI}convmlp_s_cifar100.pth"),
    "convmlp_m.shi_cifar100": (89.1, 224, f"{SHI}convmlp_m_cifar100.pth"),
    "convmlp_l.shi_cifar100": (88.6, 224, f"{SHI}convmlp_l_cifar100.pth"),
    "convmlp_s.shi_flowers102": (99.5, 224, f"{SHI}convmlp_s_flowers102.pth"),
    "convmlp_m.shi_flowers102": (99.5, 224, f"{SHI}convmlp_m_flowers102.pth"),
    "convmlp_l.shi_flowers102": (99.5, 224, f"{SHI}convmlp_l_flowers102.pth"),
    "msmlp_t.jz_in1k": (82.1, 256, "tiny_patch4/msmlp_tiny_patch4_ckpt_epoch299.pth"),
    "msmlp_s.jz_in1k": (83.4, 256, "small_patch4/msmlp_small_patch4_ckpt_epoch299.pth"),
    "msmlp_b.jz_in1k": (83.8, 256, "base_patch4/msmlp_base_patch4_ckpt_epoch299.pth"),
    "smlpnet_s.ms_in1k": (83.1, 256, "SPACH/releases/download/v1.0/smlp_s.pth"),
    "smlpnet_b.ms_in1k": (83.4, 256, "SPACH/releases/download/v1.0/smlp_b.pth"),
    "resmlp_s12.fb_in1k": (76.6, 248, f"{FB}resmlp_12_no_dist.pth"),
    "resmlp_s24.fb_in1k": (79.4, 248, f"{FB}resmlp_24_no_dist.pth"),
    "resmlp_s36.fb_in1k": (79.7, 248, f"{FB}resmlp_36_no_dist.pth"),
    "resmlp_b24.fb_in1k": (81.0, 248, f"{FB}resmlpB_24_no_dist.pth"),
    "resmlp_s12.fb_distilled_in1k": (77.8, 248, f"{FB}resmlp_12_dist.pth"),
    "resmlp_s24.fb_distilled_in1k": (80.8, 248, f"{FB}resmlp_24_dist.pth"),
    "resmlp_s36.fb_distilled_in1k": (81.1, 248, f"{FB}resmlp_36_dist.pth"),
    "resmlp_b24.fb_distilled_in1k": (83.6, 248, f"{FB}resmlpB_24_dist.pth"),
    "resmlp_b24.fb_in22k_ft_in1k": (84.4, 248, f"{FB}resmlpB_24_22k.pth"),
    "resmlp_s12.fb_dino": (62.6, 248, f"{FB}resmlp_12_dino.pth"),
    "resmlp_s24.fb_dino": (69.4, 248, f"{FB}resmlp_24_dino.pth"),
    "resmlp_s12.timm_fb_in1k": (76.6, 256, f"{TIMM}resmlp_12_224.fb_in1k"),
    "resmlp_s24.timm_fb_in1k": (79.4, 256, f"{TIMM}resmlp_24_224.fb_in1k"),
    "resmlp_s36.timm_fb_in1k": (79.7, 256, f"{TIMM}resmlp_36_224.fb_in1k"),
    "resmlp_b24.timm_fb_in1k": (81.0, 256, f"{TIMM}resmlp_big_24_224.fb_in1k"),
    "resmlp_s12.timm_fb_distilled_in1k": (
        77.8, 256, f"{TIMM}resmlp_12_224.fb_distilled_in1k"
    ),
    "resmlp_s24.timm_fb_distilled_in1k": (
        80.8, 256, f"{TIMM}resmlp_24_224.fb_distilled_in1k"
    ),
    "resmlp_s36.timm_fb_distilled_in1k": (
        81.1, 256, f"{TIMM}resmlp_36_224.fb_distilled_in1k"
    ),
    "resmlp_b24.timm_fb_distilled_in1k": (
        83.6, 256, f"{TIMM}resmlp_big_24_224.fb_distilled_in1k"
    ),
    "resmlp_b24.timm_fb_in22k_ft_in1k": (
        84.4, 256, f"{TIMM}resmlp_big_24_224.fb_in22k_ft_in1k"
    ),
    "resmlp_s12.timm_fb_dino": (62.6, 256, f"{TIMM}resmlp_12_224.fb_dino"),
    "resmlp_s24.timm_fb_dino": (69.4, 256, f"{TIMM}resmlp_24_224.fb_dino"),
}  # fmt: skip
# By tag: mean of red, deviation of blue, metric, classes, labels, licence.
OF_TAG = {
    "shi_cifar10": (0.4914, 0.2616, "CIFAR-10 top-1", 10, "cifar10", "Apache-2.0"),
    "shi_cifar100": (0.5071, 0.2761, "CIFAR-100 top-1", 100, "cifar100", "Apache-2.0"),
    "shi_flowers102": (0.4353, 0.2698, "Flowers-102 top-1", 102, None, "Apache-2.0"),
    "fb_dino": (0.485, 0.225, "ImageNet-1k k-NN", 0, None, "Apache-2.0"),
    "timm_fb_dino": (0.485, 0.225, "ImageNet-1k k-NN", 0, None, "Apache-2.0"),
}
IMAGENET = (0.485, 0.225, "ImageNet-1k top-1", 1000, "imagenet1k")
MIT = ("dxh", "jz", "ms")
HASHES = {
    "repmlpnet_b224.mm_in1k": "1cb1f11b",
    "repmlpnet_b256.mm_in1k": "7c5a91ce",
}
DEFAULTS = {
    "repmlpnet_t224": "dxh_in1k",
    "repmlpnet_t256": "dxh_in1k",
    "repmlpnet_b224": "mm_in1k",
    "repmlpnet_b256": "mm_in1k",
    "repmlpnet_d256": "dxh_in1k",
    "repmlpnet_l256": "dxh_in1k",
    "convmlp_s": "shi_in1k",
    "convmlp_m": "shi_in1k",
    "convmlp_l": "shi_in1k",
    "msmlp_t": "jz_in1k",
    "msmlp_s": "jz_in1k",
    "msmlp_b": "jz_in1k",
    "smlpnet_s": "ms_in1k",
    "smlpnet_b": "ms_in1k",
    "resmlp_s12": "fb_distilled_in1k",
    "resmlp_s24": "fb_distilled_in1k",
    "resmlp_s36": "fb_distilled_in1k",
    "resmlp_b24": "fb_in22k_ft_in1k",
    "smlpnet_xs": "kmlp_cifar10",
}
UNPUBLISHED = (
    *("repmlpnet_cifar", "resmlp_12_cifar", "smlpnet_t", "smlpnet_t_a2"),
    *(f"msmlp_{kind}_{size}" for kind in ("swin", "focal") for size in "tsb"),
    # Baselines of the papers; others published them.
    *(f"{kind}_{size}" for kind in ("swin", "focal") for size in "tsb"),
    "mlp_mixer_b16",
)


def test_every_checkpoint_is_listed_once():
    assert kmlp.list_weights() == sorted([*FACTS, PACKAGED])
    assert len(FACTS) == 47
    assert len({entry.address for entry in WEIGHTS.values()}) == 48


@pytest.mark.parametrize("name", FACTS)
def test_facts(name):
    entry, (top1, resized, address) = WEIGHTS[name], FACTS[name]
    architecture, tag = name.split(".")
    assert (entry.name, entry.architecture, entry.tag) == (name, architecture, tag)
    assert architecture in kmlp.list_models()
    assert entry.top1 == top1
    licence = "MIT" if tag.split("_")[0] in MIT else "Apache-2.0"
    assert (
        entry.mean[0],
        entry.std[2],
        entry.metric,
        entry.num_classes,
        entry.labels,
        entry.licence,
    ) == OF_TAG.get(tag, (*IMAGENET, licence))
    assert entry.image_size == (256 if architecture.endswith("256") else 224)
    # As the evaluation resizes.
    assert math.floor(entry.image_size / entry.test_crop) == resized
    is_repmlpnet = architecture.startswith("repmlpnet")
    assert entry.test_interpolation == ("bilinear" if is_repmlpnet else "bicubic")
    assert entry.sha256 == HASHES.get(name)
    assert entry.address.startswith("https://")
    if tag == "dxh_in1k":
        assert f"?id={address}&export=download&confirm=t" in entry.address
        assert entry.page == f"https://drive.google.com/file/d/{address}/view"
    elif tag.startswith("timm"):
        whole = f"https://huggingface.co/{address}/resolve/main/model.safetensors"
        assert entry.address == whole
    else:
        assert entry.address.endswith(address)
    # An address tells the size of its architecture, too.
    assert re.fullmatch(r"github\.com/[\w-]+/[\w-]+|huggingface\.co/timm/[\w.]+",
                        entry.publisher)  # fmt: skip


def test_what_comes_with_the_package(tmp_path, monkeypatch):
    """A file of the package, of a run whose log says the same."""
    entry = WEIGHTS[PACKAGED]
    assert (entry.metric, entry.labels) == ("CIFAR-10 top-1", "cifar10")
    path = download(entry)
    assert path.is_relative_to(Path(kmlp.__file__).parent)
    assert path.stat().st_size <= 3e6
    assert sha256_of(path) == entry.sha256
    model = kmlp.create_model(PACKAGED)
    assert model.name == entry.architecture
    known = model.preprocessing
    assert (known.mean, known.std) == (entry.mean, entry.std)
    assert known.class_names == class_names("cifar10")
    log = ROOT / "training/logs" / f"{entry.architecture}_cifar10"
    result = json.loads((log / "report.json").read_text("utf-8"))
    assert round(100 * result["forms"]["trained"]["accuracy"], 2) == entry.top1 >= 85

    broken = tmp_path / path.name
    broken.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setattr(downloads, "cache_path", lambda entry: broken)
    with pytest.raises(InputError, match="install the package again"):
        download(entry)


def test_timm_conversions_are_as_timm_has_them():
    """Read from timm's source: importing it needs torchvision."""
    spec = importlib.util.find_spec("timm")
    if spec is None:
        pytest.skip("needs timm")
    source = Path(spec.origin).with_name("models") / "mlp_mixer.py"
    tree = ast.parse(source.read_text("utf-8"))
    dicts = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    theirs = {
        key.value: {k.arg: ast.unparse(k.value) for k in value.keywords}
        for node in dicts
        for key, value in zip(node.keys, node.values)
        if isinstance(key, ast.Constant)
        and str(key.value).startswith("resmlp")
        and isinstance(value, ast.Call)
    }
    common = next(
        ast.literal_eval(ast.unparse(value))
        for node in dicts
        for key, value in zip(node.keys, node.values)
        if isinstance(key, ast.Constant) and key.value == "crop_pct"
    )
    ours = [entry for entry in WEIGHTS.values() if entry.tag.startswith("timm_")]
    names = [entry.address.split("/")[4] for entry in ours]
    assert sorted(names) == sorted(theirs)
    for entry, name in zip(ours, names):
        authors = WEIGHTS[entry.name.replace("timm_", "")]
        assert theirs[name]["url"] == repr(authors.address)
        assert theirs[name]["mean"] == "IMAGENET_DEFAULT_MEAN"
        assert theirs[name]["std"] == "IMAGENET_DEFAULT_STD"
        assert entry.test_crop == common


def test_default_is_the_best_reported():
    chosen = {name: published_weights(name, "default").tag for name in DEFAULTS}
    assert chosen == DEFAULTS
    assert {*DEFAULTS, *UNPUBLISHED} == {*kmlp.list_models()}
    assert list_unpublished() == sorted(UNPUBLISHED)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*", 48),
        ("resmlp_*", 22),
        ("resmlp_s12", 6),
        ("*.fb_dino", 2),
        ("*.mm_in1k", 2),
        ("smlpnet_t", 0),
    ],
)
def test_patterns(pattern, count):
    assert len(kmlp.list_weights(pattern)) == count


def test_tag_with_and_without_its_architecture():
    entry = published_weights("resmlp_s12", "fb_in1k")
    assert published_weights("resmlp_s12", "resmlp_s12.fb_in1k") is entry
    assert entry is WEIGHTS["resmlp_s12.fb_in1k"]


@pytest.mark.parametrize(
    ("architecture", "tag", "words"),
    [
        # The nearest first.
        ("resmlp_s12", "fb_destilled", "choose fb_distilled_in1k, "),
        ("convmlp_s", "shi_cifar", "choose shi_cifar10, "),
        ("resmlp_s12", "resmlp_s24.fb_in1k", "of resmlp_s24"),
        ("resmlp_s99", "fb_in1k", "resmlp_s36"),
        ("smlpnet_t", "default", "--arch smlpnet_t --data tfds:imagenet2012"),
        ("smlpnet_t", "default", "smlpnet_imagenet"),
        ("smlpnet_t_a2", "ms_in1k", "No weights of smlpnet_t_a2 were published"),
        ("msmlp_swin_t", "default", "No weights of msmlp_swin_t were published"),
        ("swin_t", "default", "pass its authors' or timm's file as `weights`"),
        ("repmlpnet_cifar", "default", "--arch repmlpnet_cifar --data tfds:cifar100"),
        ("resmlp_12_cifar", "fb_in1k", "cifar100_locality"),
    ],
)
def test_what_there_is_not(architecture, tag, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        published_weights(architecture, tag)
    assert "Received: " in str(caught.value)


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_the_recipe_that_is_named_is_the_implied_one(name):
    catalogue = pytest.importorskip("kmlp.recipes.choosing")
    with pytest.raises(ValueError, match="recipe") as caught:
        published_weights(name)
    small = name.endswith("_cifar")
    recipe = catalogue.recipe_for(name, small_images=small)
    assert f"recipe, {recipe.name})" in str(caught.value)


def test_class_names():
    names = class_names("imagenet1k")
    assert len(names) == len(set(names)) == 1000
    assert names[0] == "tench"
    assert names[9] == "ostrich"
    assert names[134] == "crane (bird)"
    assert names[517] == "crane (machine)"
    assert names[999] == "toilet tissue"
    ids = spellings(names)[1]
    assert ids[0] == "n01440764"
    assert list(ids) == sorted(ids)
    assert all(re.fullmatch(r"n\d{8}", number) for number in ids)
    assert len(set(ids)) == 1000
    assert class_names("cifar10")[3] == "cat"
    cifar100 = class_names("cifar100")
    assert len(set(cifar100)) == 100
    assert list(cifar100) == sorted(cifar100)
    assert class_names(None) is None
    for entry in WEIGHTS.values():
        if entry.labels:
            assert len(class_names(entry.labels)) == entry.num_classes
    with pytest.raises(ValueError, match=r"cifar100.*Received: 'coco'"):
        class_names("coco")


def test_imagenet_folders_go_by_synset():
    """Neither TensorFlow Datasets nor the folders name ImageNet's classes by words."""
    names = class_names("imagenet1k")
    ids = spellings(names)[1]
    assert class_numbers(ids[::-1], names, 1000) == list(range(1000))[::-1]
    assert class_numbers(names, names, 1000) == list(range(1000))
    assert spellings(("cat", "dog")) == [("cat", "dog")]


def test_label_lines_by_synset_or_name(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("a.jpg n01440764\nb.jpg tench\nc.jpg 2\n")
    names = class_names("imagenet1k")
    truth = read_labels(path, ["a.jpg", "b.jpg", "c.jpg"], names, 1000)
    assert truth == [(0,), (0,), (2,)]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["*.mm_in1k"],
            [
                "| `repmlpnet_b224.mm_in1k` | 80.41 ImageNet-1k top-1 | 224 |",
                "mean 0.485/0.456/0.406, deviation 0.229/0.224/0.225",
                "crop 0.875 bilinear",
                "| Apache-2.0 | https://download.openmmlab.com/",
            ],
        ),
        (
            ["smlpnet_*"],
            ["| `smlpnet_s.ms_in1k` | 83.1", "None are listed of smlpnet_t, "],
        ),
        (["repmlpnet_t224"], ["| https://drive.google.com/file/d/1TgPDD78G"]),
    ],
)
def test_command(argv, words, capsys):
    assert main.main(["list", "--weights", *argv]) == 0
    output = capsys.readouterr().out
    for word in words:
        assert word in output


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("nothing*", "kmlp list --weights"),
        ("smlpnet_t", "training/train.py --arch smlpnet_t"),
    ],
)
def test_command_without_any(pattern, words, capsys):
    assert main.main(["list", "--weights", pattern]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_a_wheel_has_the_names(tmp_path):
    """What is installed from it would otherwise miss them."""
    pytest.importorskip("setuptools")
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    copy = tmp_path / "source"
    copy.mkdir()
    # Built elsewhere, since setuptools leaves its work beside what it builds.
    for name in ("kmlp", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).symlink_to(ROOT / name)
    subprocess.run(
        [sys.executable, "-c", build, tmp_path],
        cwd=copy,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    classes = "kmlp/weights/classes"
    with zipfile.ZipFile(wheel) as archive:
        assert len(archive.read(f"{classes}/imagenet1k.txt").splitlines()) == 1000
        names = archive.namelist()
        assert f"{classes}/cifar10.txt" in names
        # Whatever lies beside the code is installed, and the trainer is code.
        files = [p for p in (ROOT / "kmlp").rglob("*") if p.is_file()]
        wanted = {p.relative_to(ROOT).as_posix() for p in files if p.suffix != ".pyc"}
        assert wanted <= set(names)
        assert {"kmlp/training/job.py", "kmlp/recipes/recipe.py"} <= wanted
        assert {"kmlp/py.typed", "kmlp/__init__.pyi"} <= wanted
        (licence,) = (name for name in names if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
        (entries,) = (name for name in names if name.endswith("/entry_points.txt"))
        assert b"kmlp = kmlp.commands.main:enter" in archive.read(entries)
        assert not any(name.startswith(("training/", "tests/")) for name in names)
