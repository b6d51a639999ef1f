"""The recipes of fine-tuning, of CIFAR-100 from scratch, and of small images."""

from kmlp.recipes.classification_recipe import ClassificationRecipe, Entry
from kmlp.recipes.imagenet import DEIT

# The recipes for weights and data that no paper names.
FINETUNE_OWN, SMALL = "finetune", "small_images"
# ConvMLP's fine-tuning; other papers that fine-tune leave theirs unstated.
FINETUNE = {
    **DEIT,
    "epochs": 50,
    "cooldown_epochs": 10,
    "batch_size": 1024,
    "learning_rate": 3e-4,
    "final_rate": 1e-5,
    "warmup_epochs": 10,
    "warmup_rate": 1e-6,
    "schedule_by": "epoch",
    "weight_decay": 0.05,
    "crop_scale": (0.8, 1.0),
    "interpolation": "random",
}
DEVICES = (
    "The published batch is per device, on eight devices as for ImageNet: how many "
    "the paper does not say. "
)
UNSTATED = (
    "ResMLP's own settings are unstated in the paper; these are ConvMLP's. Its first "
    "author gave for CIFAR: AdamW at 5e-6, batch 768, 1000 epochs, three repeats. "
)

ENTRIES = (
    Entry(
        ClassificationRecipe(
            name="cifar100_locality",
            reproduces="RepMLPNet, Table 4: CIFAR-100 with and without local branches",
            top1={"repmlpnet_cifar": 67.43, "resmlp_12_cifar": 55.58},
            notes="Accuracies are of the architectures as they are named: RepMLPNet "
            "with 1x1 and 3x3 branches, ResMLP without. By branches none/1x1/3x3/"
            "both: RepMLPNet 59.07/60.73/65.36/67.43, ResMLP 55.58/57.96/63.76/65.09. "
            "The paper leaves mixup, RandAugment, smoothing, clipping and mirroring "
            "open: these are the published trainer's defaults.",
            epochs=100,
            batch_size=128,
            learning_rate=2e-3,
            warmup_epochs=10,
            warmup_rate=5e-7,
            rate_batch=256,
            scale_all=True,
            schedule_by="step",
            weight_decay=0.1,
            clip_norm=5.0,
            label_smoothing=0.1,
            drop_path=0.0,
            image_size=32,
            crop="pad",
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2673, 0.2564, 0.2762),
        ),
        "tfds:cifar100",
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_cifar10",
            reproduces="ConvMLP, Table 4, and ResMLP, Table 3: CIFAR-10 at 224",
            top1={
                "convmlp_s": 98.0,
                "convmlp_m": 98.6,
                "convmlp_l": 98.6,
                "resmlp_s12": 98.1,
                "resmlp_s24": 98.7,
            },
            notes=DEVICES + UNSTATED,
            **FINETUNE
            | {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)},
        ),
        "tfds:cifar10",
        {"convmlp_l": {"batch_size": 512}},
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_cifar100",
            reproduces="ConvMLP, Table 4, and ResMLP, Table 3: CIFAR-100 at 224",
            top1={
                "convmlp_s": 87.4,
                "convmlp_m": 89.1,
                "convmlp_l": 88.6,
                "resmlp_s12": 87.0,
                "resmlp_s24": 89.5,
            },
            notes=DEVICES + UNSTATED,
            **FINETUNE
            | {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)},
        ),
        "tfds:cifar100",
        {"convmlp_l": {"batch_size": 512}},
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_flowers102",
            reproduces="ConvMLP, Table 4, and ResMLP, Table 3: Flowers-102 at 224",
            top1={
                "convmlp_s": 99.5,
                "convmlp_m": 99.5,
                "convmlp_l": 99.5,
                "resmlp_s12": 97.4,
                "resmlp_s24": 97.9,
            },
            notes=DEVICES + "With the 1,020 training images of the usual split this is "
            "one step per epoch: lower batch_size there. " + UNSTATED,
            **FINETUNE
            | {
                "batch_size": 768,
                "final_rate": 1e-8,
                "mean": (0.4353, 0.3773, 0.2872),
                "std": (0.2966, 0.2455, 0.2698),
            },
        ),
        "tfds:oxford_flowers102",
        {
            "convmlp_s": {"learning_rate": 5e-4},
            "convmlp_l": {"batch_size": 512},
        },
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_cars",
            reproduces="ResMLP, Table 3: Stanford Cars at 224",
            top1={"resmlp_s12": 84.6, "resmlp_s24": 89.5},
            notes=UNSTATED,
            **FINETUNE,
        ),
        "tfds:cars196",
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_inat18",
            reproduces="ResMLP, Table 3: iNaturalist 2018 at 224",
            top1={"resmlp_s24": 64.3},
            notes=UNSTATED,
            **FINETUNE,
        ),
        "tfds:i_naturalist2018",
    ),
    Entry(
        ClassificationRecipe(
            name="finetune_inat19",
            reproduces="ResMLP, Table 3: iNaturalist 2019 at 224",
            top1={"resmlp_s24": 72.5},
            notes=UNSTATED,
            **FINETUNE,
        ),
        "FOLDER",
    ),
    Entry(
        ClassificationRecipe(
            name=FINETUNE_OWN,
            reproduces="ConvMLP's fine-tuning, for weights and images of one's own",
            notes="The published batch of one device. Image size, mean and deviation "
            "are those of the weights.",
            **FINETUNE | {"batch_size": 128, "flip": None, "mean": None, "std": None},
        ),
    ),
    Entry(
        ClassificationRecipe(
            name=SMALL,
            reproduces="no paper: minutes on a laptop, for images of up to 64 pixels",
            images_shown=300_000,
            batch_size=64,
            epsilon=1e-7,
            learning_rate=1e-3,
            warmup_epochs=None,
            cosine_from="warmup",
            weight_decay=0.05,
            label_smoothing=0.1,
            image_size=32,
            crop="shift",
            flip=None,
        ),
        by_arch={
            # Without a residual around its depthwise convolutions it wants small
            # steps: at 1e-3 it learns half as fast, at 2e-3 not at all on some seeds.
            "convmlp_*": {"learning_rate": 3e-4},
            # Patches of 8 leave 4x4 positions, at a quarter of the cost of patches of
            # 4. Layer scales of 1e-5 and less, as deep variants have, grow too slowly
            # for short runs.
            "resmlp_*": {
                "batch_size": 32,
                "learning_rate": 2e-3,
                "model": {"patch_size": 8, "layer_scale": 0.1},
            },
            "msmlp_*": {"model": {"layer_scale": 0.1}},
            "msmlp_focal_*": {"model": {"layer_scale": 0.1, "window_size": 4}},
            # Windows that tile the 8x8 positions of the first stage.
            "focal_*": {"model": {"window_size": 4}},
            # Made for 32x32 and left as it is.
            "resmlp_12_cifar": {"model": {}},
        },
    ),
)
