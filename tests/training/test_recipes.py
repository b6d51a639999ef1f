"""The recipes against the papers, and what the command line makes of them."""

import dataclasses
import json

import keras
import pytest

import kmlp
from kmlp.errors import KmlpError
from kmlp.recipes import (
    ClassificationRecipe,
    describe,
    from_json,
    list_recipes,
    override,
    recipe_for,
    table,
    to_json,
)
from kmlp.recipes.choosing import CATALOGUE
from kmlp.recipes.paper_recipes import read_entries
from kmlp.training.networks import build

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

# Transcribed from the papers and their trainers, per recipe: architectures, then the
# fields in the order of COLUMNS.
COLUMNS = [
    "epochs",
    "cooldown_epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "final_rate",
    "warmup_epochs",
    "warmup_rate",
    "weight_decay",
    "clip_norm",
    "label_smoothing",
    "mixup",
    "cutmix",
    "policy",
    "erasing",
    "repeats",
    "ema",
    "evaluate",
    "interpolation",
    "test_crop",
    "test_interpolation",
    "schedule_by",
]
RAND = "rand-m9-mstd0.5-inc1"
ROWS = {
    "repmlpnet_imagenet": [
        *(100, 0, 256, "adamw", 0.002, 0, 10, 5e-7, 0.1, 5, 0.1, 0.4, 1),
        *("repmlpnet-rand", 0, 1, None, "raw", "bilinear", 1, "bilinear", "step"),
    ],
    "resmlp_imagenet": [
        *(400, 0, 1024, "lamb", 0.005, 1e-5, 5, 1e-6, 0.2, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 3, 0.99996, "raw", "bicubic", 0.9, "bicubic", "epoch"),
    ],
    "resmlp_imagenet_distilled": [
        *(400, 0, 1024, "lamb", 0.005, 1e-5, 5, 1e-6, 0.2, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 3, 0.99996, "raw", "bicubic", 0.9, "bicubic", "epoch"),
    ],
    "convmlp_imagenet": [
        *(300, 10, 1024, "adamw", 0.0005, 1e-5, 5, 1e-4, 0.05, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 1, 0.99996, "ema", "bicubic", 0.9, "bicubic", "epoch"),
    ],
    "convmlp_ablation": [
        *(100, 10, 1024, "adamw", 0.001, 1e-5, 5, 1e-4, 0.05, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 1, 0.99996, "ema", "bicubic", 0.9, "bicubic", "epoch"),
    ],
    "msmlp_imagenet": [
        *(300, 0, 1024, "adamw", 0.001, 1e-5, 20, 1e-5, 0.05, 5, 0.1, 0.8, 1),
        *(RAND, 0.25, 1, 0.9999, "raw", "bicubic", 0.875, "bicubic", "step"),
    ],
    "smlpnet_imagenet": [
        *(300, 0, 1024, "adamw", 0.001, 1e-5, 20, 1e-6, 0.05, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 3, 0.99996, "raw", "bicubic", 0.875, "bicubic", "epoch"),
    ],
    "cifar100_locality": [
        *(100, 0, 128, "adamw", 0.002, 0, 10, 5e-7, 0.1, 5, 0.1, 0, 0),
        *(None, 0, 1, None, "raw", "bilinear", 1, "bilinear", "step"),
    ],
    "finetune_cifar10": [
        *(50, 10, 1024, "adamw", 3e-4, 1e-5, 10, 1e-6, 0.05, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 1, None, "raw", "random", 1, "bicubic", "epoch"),
    ],
    "finetune_flowers102": [
        *(50, 10, 768, "adamw", 3e-4, 1e-8, 10, 1e-6, 0.05, None, 0.1, 0.8, 1),
        *(RAND, 0.25, 1, None, "raw", "random", 1, "bicubic", "epoch"),
    ],
}
for same in ("cifar100", "cars", "inat18", "inat19"):
    ROWS[f"finetune_{same}"] = ROWS["finetune_cifar10"]

STATISTICS = {
    "cifar100_locality": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "finetune_cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "finetune_cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "finetune_flowers102": ((0.4353, 0.3773, 0.2872), (0.2966, 0.2455, 0.2698)),
    "small_images": (None, None),
}

# Architecture, recipe, and what is particular to the two.
PARTICULAR = [
    ("repmlpnet_t224", "repmlpnet_imagenet", {"image_size": 224, "drop_path": 0}),
    ("repmlpnet_l256", "repmlpnet_imagenet", {"image_size": 256, "drop_path": 0}),
    ("resmlp_s36", "resmlp_imagenet", {"drop_path": 0.1, "distillation": "none"}),
    (
        "resmlp_s12",
        "resmlp_imagenet_distilled",
        {"distillation": "hard", "distillation_alpha": 1, "teacher": None},
    ),
    ("convmlp_l", "convmlp_imagenet", {"drop_path": 0.1, "sync_batchnorm": False}),
    ("msmlp_t", "msmlp_imagenet", {"drop_path": 0.2}),
    ("msmlp_s", "msmlp_imagenet", {"drop_path": 0.3}),
    ("msmlp_b", "msmlp_imagenet", {"drop_path": 0.5}),
    ("msmlp_swin_t", "msmlp_imagenet", {"drop_path": 0.2}),
    ("focal_s", "msmlp_imagenet", {"drop_path": 0.3}),
    ("smlpnet_t", "smlpnet_imagenet", {"drop_path": 0}),
    ("smlpnet_t_a2", "smlpnet_imagenet", {"drop_path": 0}),
    ("smlpnet_s", "smlpnet_imagenet", {"drop_path": 0.2}),
    ("smlpnet_b", "smlpnet_imagenet", {"drop_path": 0.3}),
    ("resmlp_12_cifar", "cifar100_locality", {"image_size": 32, "crop": "pad"}),
    ("convmlp_m", "finetune_cifar100", {"crop_scale": (0.8, 1), "batch_size": 1024}),
    ("convmlp_l", "finetune_cifar100", {"batch_size": 512, "learning_rate": 3e-4}),
    ("convmlp_s", "finetune_flowers102", {"batch_size": 768, "learning_rate": 5e-4}),
    ("convmlp_m", "finetune_flowers102", {"batch_size": 768, "learning_rate": 3e-4}),
    ("convmlp_l", "finetune_flowers102", {"batch_size": 512, "learning_rate": 3e-4}),
    ("resmlp_s24", "finetune_inat18", {"image_size": 224, "drop_path": None}),
    # A recipe of another family falls back to what no pattern changes.
    ("resmlp_s12", "msmlp_imagenet", {"drop_path": None, "optimizer": "adamw"}),
]

# What small images have been trained with, by architecture: batch, rate, arguments.
SMALL = {
    "convmlp_s": (64, 3e-4, {}),
    "resmlp_s24": (32, 2e-3, {"patch_size": 8, "layer_scale": 0.1}),
    "resmlp_12_cifar": (32, 2e-3, {}),
    "msmlp_b": (64, 1e-3, {"layer_scale": 0.1}),
    "repmlpnet_cifar": (64, 1e-3, {}),
    "smlpnet_t": (64, 1e-3, {}),
}

TOP1 = {
    "repmlpnet_imagenet": {
        **{"repmlpnet_t224": 76.4, "repmlpnet_t256": 77.5, "repmlpnet_b224": 80.1},
        **{"repmlpnet_b256": 81.0, "repmlpnet_d256": 80.8, "repmlpnet_l256": 81.8},
        "mlp_mixer_b16": 76.7,
    },
    "resmlp_imagenet": {
        **{"resmlp_s12": 76.6, "resmlp_s24": 79.4, "resmlp_s36": 79.7},
        "resmlp_b24": 81.0,
    },
    "resmlp_imagenet_distilled": {
        **{"resmlp_s12": 77.8, "resmlp_s24": 80.8, "resmlp_s36": 81.1},
        "resmlp_b24": 83.6,
    },
    "convmlp_imagenet": {"convmlp_s": 76.8, "convmlp_m": 79.0, "convmlp_l": 80.2},
    "convmlp_ablation": {"convmlp_s": 74.04},
    "msmlp_imagenet": {
        **{"msmlp_t": 82.1, "msmlp_s": 83.4, "msmlp_b": 83.8},
        **{"msmlp_swin_t": 81.9, "msmlp_swin_s": 83.5, "msmlp_swin_b": 83.8},
        **{"msmlp_focal_t": 82.8, "msmlp_focal_s": 83.9, "msmlp_focal_b": 84.0},
        **{"swin_t": 81.3, "swin_s": 83.0, "swin_b": 83.3},
        **{"focal_t": 82.2, "focal_s": 83.5, "focal_b": 83.8},
    },
    "smlpnet_imagenet": {
        **{"smlpnet_t_a2": 81.3, "smlpnet_t": 81.9, "smlpnet_s": 83.1},
        "smlpnet_b": 83.4,
    },
    "cifar100_locality": {"repmlpnet_cifar": 67.43, "resmlp_12_cifar": 55.58},
    "finetune_cifar10": {
        **{"convmlp_s": 98.0, "convmlp_m": 98.6, "convmlp_l": 98.6},
        **{"resmlp_s12": 98.1, "resmlp_s24": 98.7},
    },
    "finetune_cifar100": {
        **{"convmlp_s": 87.4, "convmlp_m": 89.1, "convmlp_l": 88.6},
        **{"resmlp_s12": 87.0, "resmlp_s24": 89.5},
    },
    "finetune_flowers102": {
        **{"convmlp_s": 99.5, "convmlp_m": 99.5, "convmlp_l": 99.5},
        **{"resmlp_s12": 97.4, "resmlp_s24": 97.9},
    },
    "finetune_cars": {"resmlp_s12": 84.6, "resmlp_s24": 89.5},
    "finetune_inat18": {"resmlp_s24": 64.3},
    "finetune_inat19": {"resmlp_s24": 72.5},
    "finetune": {},
    "small_images": {},
}

# Batch, and the rates that the published trainers arrive at: peak, warm-up, floor.
RATES = [
    ("repmlpnet_t224", "repmlpnet_imagenet", 512, (4e-3, 1e-6, 0)),
    ("repmlpnet_cifar", "cifar100_locality", None, (1e-3, 2.5e-7, 0)),
    ("resmlp_s12", "resmlp_imagenet", 512, (2.5e-3, 1e-6, 1e-5)),
    ("convmlp_s", "convmlp_imagenet", 512, (5e-4, 1e-4, 1e-5)),
    ("msmlp_t", "msmlp_imagenet", 512, (5e-4, 5e-6, 5e-6)),
    ("smlpnet_t", "smlpnet_imagenet", 4096, (4e-3, 1e-6, 1e-5)),
    ("convmlp_s", "finetune_cifar10", 64, (3e-4, 1e-6, 1e-5)),
]


def test_every_recipe_is_checked_here():
    assert set(list_recipes()) == set(TOP1) == {*ROWS, "finetune", "small_images"}
    for name, entry in CATALOGUE.items():
        assert entry.recipe.name == name
        assert entry.recipe.reproduces
        assert set(entry.recipe.top1) <= set(kmlp.list_models())


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_what_differs_by_architecture_is_of_known_fields(entry):
    for pattern in entry.by_arch:
        assert isinstance(entry.of(pattern), ClassificationRecipe)


FILE = """
[notes]
known = "It is known."
[shared.base]
batch_size = 8
flip = "none"
statistics = "CIFAR10"
[recipes.one]
like = ["base"]
notes = ["One. ", "known"]
learning_rate = 1
[recipes.two]
like = ["one"]
crop = "none"
mean = "none"
std = "none"
top1 = ["convmlp/table3/convmlp_s", { resmlp_b24 = 81.0 }]
"""


def test_a_file_of_recipes():
    one, two = read_entries(FILE)
    assert (one.recipe.name, one.recipe.notes) == ("one", "One. It is known.")
    assert (one.recipe.mean, one.recipe.std) == STATISTICS["finetune_cifar10"]
    assert (one.recipe.flip, one.recipe.top1) == (None, {})
    assert (one.data, one.by_arch) == ("", {})
    assert (two.recipe.batch_size, two.recipe.learning_rate) == (8, 1.0)
    assert (two.recipe.crop, two.recipe.mean, two.recipe.std) == ("none", None, None)
    assert two.recipe.top1 == {"convmlp_s": 76.8, "resmlp_b24": 81.0}


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ("bath_size = 8", TypeError, "bath_size"),
        ('bath_size = "none"', TypeError, "bath_size"),
        ('batch_size = "none"', KmlpError, "batch_size must be an integer"),
        ("test_crop = 2.0", KmlpError, "test_crop must be a number"),
        ('statistics = "CIFAR11"', AttributeError, "CIFAR11"),
        ('[recipes.three]\nlike = ["later"]', KeyError, "later"),
    ],
)
def test_a_file_of_recipes_is_checked(line, error, words):
    with pytest.raises(error, match=words):
        read_entries(f"{FILE}{line}\n")


@pytest.mark.parametrize("name", ROWS)
def test_values_are_the_papers(name):
    recipe = CATALOGUE[name].recipe
    assert dict(zip(COLUMNS, ROWS[name], strict=True)) == {
        column: getattr(recipe, column) for column in COLUMNS
    }
    assert (recipe.mean, recipe.std) == STATISTICS.get(name, IMAGENET)
    assert (recipe.beta_1, recipe.beta_2, recipe.epsilon) == (0.9, 0.999, 1e-8)
    assert (recipe.flip, recipe.switch_probability) == (0.5, 0.5)
    assert recipe.crop_ratio == (3 / 4, 4 / 3)
    assert recipe.crop_scale == ((0.8, 1) if "finetune" in name else (0.08, 1))
    assert recipe.cosine_from == "start"
    assert recipe.mix_probability == recipe.accumulate == 1


@pytest.mark.parametrize(("name", "top1"), TOP1.items())
def test_expected_accuracies_are_the_papers(name, top1):
    assert CATALOGUE[name].recipe.top1 == top1
    assert f"{name}\n" in table()


@pytest.mark.parametrize(("arch", "name", "fields"), PARTICULAR)
def test_architectures_differ_as_in_the_papers(arch, name, fields):
    recipe = recipe_for(arch, name=name)
    assert {field: getattr(recipe, field) for field in fields} == fields


@pytest.mark.parametrize(("arch", "name", "batch", "rates"), RATES)
def test_rates_scale_as_in_the_published_trainers(arch, name, batch, rates):
    recipe = recipe_for(arch, name=name)
    assert recipe.scaled_rates(batch) == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize(("arch", "row"), SMALL.items())
def test_small_images_keep_their_settings(arch, row):
    recipe = recipe_for(arch, embedded=True)
    assert recipe.name == "small_images"
    assert (recipe.batch_size, recipe.learning_rate, recipe.model) == row
    assert (recipe.optimizer, recipe.epsilon) == ("adamw", 1e-7)
    assert (recipe.weight_decay, recipe.label_smoothing) == (0.05, 0.1)
    assert (recipe.image_size, recipe.crop) == (32, "shift")
    for images, epochs in ((1438, 20), (20_000, 15), (50_000, 6), (10**6, 5)):
        resolved = recipe.resolved(images=images, flip=False)
        assert (resolved.epochs, resolved.flip) == (epochs, 0)
        assert resolved.warmup_epochs == pytest.approx(epochs / 10)
    assert recipe.resolved(images=9).flip == 0.5


def test_implied_recipes():
    for arch in kmlp.list_models():
        family = arch.partition("_")[0]
        cifar = arch in ("repmlpnet_cifar", "resmlp_12_cifar")
        family = {"mlp": "repmlpnet", "swin": "msmlp", "focal": "msmlp"}.get(
            family, family
        )
        assert recipe_for(arch).name == f"{family}_imagenet"
        assert recipe_for(arch, embedded=True).name == "small_images"
        assert recipe_for(arch, embedded=True, small_images=True) == recipe_for(
            arch, embedded=True
        )
        assert recipe_for(arch, small_images=True).name == (
            "cifar100_locality" if cifar else "small_images"
        )


@pytest.mark.parametrize(
    ("arch", "base", "fields"),
    [
        ("convmlp/table2/plain_conv", "convmlp_imagenet", (100, 1e-3, 0.1)),
        (
            "convmlp/table2/bottleneck_conv_depthwise_300",
            "convmlp_imagenet",
            (300, 5e-4, 0.1),
        ),
        ("smlpnet/table2/s4", "smlpnet_imagenet", (300, 1e-3, 0.3)),
        ("repmlpnet/table3/gate", "repmlpnet_imagenet", (100, 2e-3, 0.0)),
    ],
)
def test_ablations_train_as_the_variants_they_change(arch, base, fields):
    recipe = recipe_for(arch)
    assert recipe.name == base
    assert (recipe.epochs, recipe.learning_rate, recipe.drop_path) == fields
    assert arch in recipe.reproduces
    assert list(recipe.top1) == [arch]
    assert recipe_for(arch, embedded=True).name == "small_images"


@pytest.mark.parametrize("name", list_recipes())
def test_json_round_trip_is_exact(name):
    for arch in kmlp.list_models():
        recipe = recipe_for(arch, name=name)
        assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    changed = override(recipe, ["model.local_kernels=1,3", "crop_scale=0.1,0.7"])
    assert from_json(json.loads(json.dumps(to_json(changed)))) == changed


OVERRIDES = [
    ("epochs=7", "epochs", 7),
    ("epochs=1e2", "epochs", 100),
    ("learning_rate=1", "learning_rate", 1.0),
    (" mixup = 0 ", "mixup", 0.0),
    ("clip_norm=none", "clip_norm", None),
    ("clip_norm=2.5", "clip_norm", 2.5),
    ("sync_batchnorm=true", "sync_batchnorm", True),
    ("scale_all=False", "scale_all", False),
    ("crop_scale=0.5,1", "crop_scale", (0.5, 1.0)),
    ("crop_scale=(0.5, 1)", "crop_scale", (0.5, 1.0)),
    ("optimizer=lamb", "optimizer", "lamb"),
    ("policy=none", "policy", None),
    ("policy=rand-m5", "policy", "rand-m5"),
    ("teacher=a=b.keras", "teacher", "a=b.keras"),
    ("teacher=12", "teacher", "12"),
    ("warmup_epochs=2.5", "warmup_epochs", 2.5),
    ("model.layer_scale=0.1", "model", {"layer_scale": 0.1}),
    ("model.norm=batch", "model", {"norm": "batch"}),
    ("model.local_kernels=1,3", "model", {"local_kernels": (1, 3)}),
    ("model.block_size=none", "model", {"block_size": None}),
    ("model=none", "model", {}),
]


@pytest.mark.parametrize(("setting", "field", "value"), OVERRIDES)
def test_overrides_are_typed_by_the_field(setting, field, value):
    base = recipe_for("convmlp_s")
    changed = override(base, [setting])
    assert getattr(changed, field) == value
    assert type(getattr(changed, field)) is type(value)
    assert dataclasses.replace(changed, **{field: getattr(base, field)}) == base


def test_overrides_together():
    base = recipe_for("resmlp_s12", embedded=True)
    changed = override(
        base,
        [
            *("model.patch_size=4", "epochs=3", "epochs=4"),
            *("mean=0.5,0.5,0.5", "std=0.2,0.2,0.2"),
        ],
    )
    assert changed.model == {"patch_size": 4, "layer_scale": 0.1}
    assert changed.epochs == 4
    assert base.model == {"patch_size": 8, "layer_scale": 0.1}
    assert override(base, []) == base


# Settings of ConvMLP's recipe, and what the one line says.
MISTAKES = [
    (["epoch=3"], "choose epochs. Received: epoch=3"),
    (["lerning_rate=3"], "choose learning_rate. Received: lerning_rate=3"),
    (["zzz=3"], "choose one of epochs"),
    (["epochs"], "FIELD=VALUE. Received: epochs"),
    (["epochs=many"], "an integer of at least 1, or none. Received: epochs=many"),
    (["epochs=2.5"], "an integer of at least 1"),
    (["batch_size=none"], "an integer of at least 1. Received: batch_size=none"),
    (["batch_size=true"], "an integer of at least 1"),
    (["batch_size=0"], "of at least 1. Received: batch_size=0"),
    (["learning_rate=-0.1"], "a number above 0. Received: learning_rate=-0.1"),
    (["learning_rate=1e999"], "a number above 0. Received"),
    (["warmup_rate=-1"], "of at least 0"),
    (["optimizer=sgd"], "adamw or lamb. Received: optimizer=sgd"),
    (["crop_scale=0.5"], "2 numbers with commas between them"),
    (["crop_scale=0.9,0.5"], "low and high"),
    (["crop_scale=0,1"], "in (0, 1]"),
    (["mean=0.5,0.5"], "3 numbers"),
    (["std=0.2,0.2,0"], "above 0"),
    (["mean=none"], "mean and std are given together"),
    (["mixup=x"], "a number of at least 0. Received: mixup=x"),
    (["flip=1.5"], "in [0, 1]"),
    (["drop_path=1"], "in [0, 1)"),
    (["ema=none"], "evaluate=ema needs a decay"),
    (["epochs=4"], "lower warmup_epochs. Received: warmup_epochs=5, epochs=4"),
    (["accumulate=3"], "must divide batch_size. Received: accumulate=3"),
    (["sync_batchnorm=2"], "true or false"),
    (["model=3"], "model.NAME=VALUE"),
    (["epochs.x=3"], "an integer"),
    (["name=mine"], "describes the recipe"),
    (["top1=3"], "describes the recipe"),
    (["distillation=maybe"], "none or hard or soft"),
]


@pytest.mark.parametrize(("settings", "words"), MISTAKES)
def test_mistakes_stop_with_one_line(settings, words):
    with pytest.raises(KmlpError) as stopped:
        override(recipe_for("convmlp_s"), settings)
    assert words in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert "Received: " in str(stopped.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"arch": "convmlp_x"}, "convmlp_s"),
        ({"arch": "convmlp_s", "name": "convmlp_imagnet"}, "convmlp_imagenet"),
        ({"arch": "convmlp_s", "name": "finetune_cifar"}, "finetune_cifar10"),
        ({"arch": "convmlp_s", "name": "?"}, "one of repmlpnet_imagenet"),
    ],
)
def test_unknown_names_stop_with_the_nearest(arguments, words):
    with pytest.raises(KmlpError, match=words):
        recipe_for(**arguments)


def test_fields_of_another_version_stop():
    fields = to_json(recipe_for("convmlp_s"))
    with pytest.raises(KmlpError, match=r"Received: epochs, lr$"):
        from_json({**{k: v for k, v in fields.items() if k != "epochs"}, "lr": 1})
    with pytest.raises(KmlpError, match="batch_size must be an integer"):
        from_json({**fields, "batch_size": "many"})


def test_what_a_run_needs_is_asked_for():
    bare = ClassificationRecipe(name="bare", batch_size=8, learning_rate=0.1)
    with pytest.raises(KmlpError, match="set epochs"):
        bare.resolved(images=9)
    distilled = recipe_for("resmlp_s12", name="resmlp_imagenet_distilled")
    with pytest.raises(KmlpError, match="set teacher"):
        distilled.resolved(images=9)
    taught = override(distilled, ["teacher=t.keras"])
    assert taught.resolved(images=9) == taught
    with pytest.raises(KmlpError, match="needs distillation"):
        override(taught, ["distillation=none"]).resolved(images=9)


def test_statistics_of_the_data_serve_where_a_recipe_has_none():
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    recipe = recipe_for("convmlp_s", embedded=True)
    recipe = recipe.resolved(images=9, mean=mean, std=std)
    assert (recipe.mean, recipe.std) == (mean, std)
    recipe = recipe_for("convmlp_s").resolved(images=9, mean=mean, std=std)
    assert (recipe.mean, recipe.std) == IMAGENET


def test_a_schedule_in_fewer_epochs():
    recipe = recipe_for("convmlp_s").shortened(30)
    assert (recipe.epochs, recipe.warmup_epochs, recipe.cooldown_epochs) == (30, 0.5, 1)
    assert recipe.schedule_by == "step"
    recipe = recipe_for("smlpnet_t").shortened(150)
    assert (recipe.epochs, recipe.warmup_epochs) == (150, 10)
    assert recipe.schedule_by == "epoch"
    recipe = recipe_for("convmlp_s").shortened(300)
    assert recipe == recipe_for("convmlp_s")
    recipe = recipe_for("msmlp_t", embedded=True).shortened(3).resolved(images=9)
    assert (recipe.epochs, recipe.warmup_epochs) == (3, pytest.approx(0.3))


def test_description_shows_everything_and_what_was_changed():
    base = recipe_for("resmlp_s12", embedded=True)
    shown = " ".join(ClassificationRecipe.GROUPS.values()).split()
    hidden = {*ClassificationRecipe.DESCRIPTIVE, "images_shown", "model"}
    assert sorted(shown) == sorted(
        field.name for field in dataclasses.fields(base) if field.name not in hidden
    )
    text = describe(base)
    for field in shown:
        assert f" {field} " in text
    assert "*" not in text
    changed = override(base, ["mixup=0.8", "model.patch_size=4", "policy=rand-m9"])
    text = describe(changed, base)
    assert "mixup              0.8 *" in text
    assert "policy             rand-m9 *" in text
    last = text.splitlines()[-1]
    assert "policy none, mixup 0, model patch_size=8" in last
    assert all(len(line) <= 88 for line in text.splitlines()[:-1])


def drop_rates(model):
    """Rates of stochastic depth by layer."""
    return {
        layer.name: layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout)
    }


# Stages of two and three blocks: the rates by block, for a rate of 0.4.
BLOCKS = {
    # Linear over all blocks.
    "msmlp_t": [0, 0.1, 0.2, 0.3, 0.4],
    "smlpnet_t": [0, 0.1, 0.2, 0.3, 0.4],
    "repmlpnet_cifar": [0, 0.1, 0.2, 0.3, 0.4],
    # From 0 in each stage.
    "convmlp_s": [0, 0.4, 0, 0.2, 0.4],
    # Constant.
    "resmlp_s12": [0.4] * 5,
}


@pytest.mark.parametrize("arch", BLOCKS)
def test_stochastic_depth_is_distributed_as_published(arch):
    recipe = override(recipe_for(arch), ["drop_path=0.4"])
    small = {
        "convmlp_s": {"depths": (2, 3), "widths": (8, 8), "mlp_ratios": (2, 2)},
        "msmlp_t": {"depths": (2, 3), "regions": ((1, 1, 1, 3, 3),) * 2, "width": 10},
        "smlpnet_t": {"depths": (2, 3), "width": 8},
        "repmlpnet_cifar": {"depths": (2, 3), "widths": (8, 8), "share_sets": (1, 1)},
        "resmlp_s12": {"depth": 5, "width": 8},
    }[arch]
    model = build(arch, 7, 32, recipe, overrides=small)
    assert model.output_shape == (None, 7)
    rates = drop_rates(model)
    names = [name for name in rates if not name.endswith(("drop2",))]
    assert [rates[name] for name in names] == pytest.approx(BLOCKS[arch])
    for name in rates:
        assert rates[name.replace("drop2", "drop1")] == rates[name]


def test_the_network_of_a_recipe():
    recipe = recipe_for("resmlp_s12", embedded=True)
    small = {"width": 16, "depth": 1}
    model = build("resmlp_s12", 10, 32, recipe, overrides=small, local_kernels=(1, 3))
    config = model.get_config()
    assert config["input_shape"] == (32, 32, 3)
    assert (config["patch_size"], config["layer_scale"]) == (8, 0.1)
    assert config["local_kernels"] == (1, 3)
    assert (config["width"], config["drop_path_rate"]) == (16, 0.0)
    for precision, compute in (
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("float16", "float16"),
        ("mixed_bfloat16", "bfloat16"),
    ):
        model = build("resmlp_s12", 10, 32, recipe, dtype=precision, overrides=small)
        # The input layer leaves images as they are.
        assert {layer.compute_dtype for layer in model.layers[1:]} == {compute}
        assert {v.dtype for v in model.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    ("arch", "size", "settings", "words"),
    [
        ("convmlp_s", 32, ["model.patch_size=3"], "choose"),
        ("resmlp_s12", 32, ["model.layerscale=1"], "choose layer_scale"),
        ("resmlp_s12", 32, ["model.drop_path_rate=1"], "set drop_path"),
        ("resmlp_s12", 32, ["model.dtype=float16"], "--precision"),
        ("resmlp_s12", 33, [], "cannot be built for 33x33"),
        ("resmlp_s12", 32, ["model.norm=group"], "cannot be built for 32x32"),
        ("resmlp_s12", 32, ["model.depth=deep"], "cannot be built for 32x32"),
        ("resmlp_x", 32, [], "Unknown architecture"),
    ],
)
def test_arguments_that_do_not_fit_stop(arch, size, settings, words):
    recipe = override(recipe_for("resmlp_s12"), settings)
    with pytest.raises(KmlpError, match=words):
        build(arch, 10, size, recipe)


def test_a_family_without_local_branches_stops():
    with pytest.raises(KmlpError, match="no local branches"):
        build("convmlp_s", 10, 32, recipe_for("convmlp_s"), local_kernels=(1,))
