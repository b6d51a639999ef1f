"""The papers' recipes of classification, and those for one's own weights and images.

They are of ImageNet, of fine-tuning, of CIFAR-100 from scratch, and of small images.
"""

import dataclasses

from kmlp.models.papers import top1_of
from kmlp.recipes.classification_recipe import ClassificationRecipe, Entry
from kmlp.statistics import CIFAR10, CIFAR100, FLOWERS102, IMAGENET
from kmlp.typing import Config

# The recipes for weights and data that no paper names.
FINETUNE_OWN, SMALL = "finetune", "small_images"
DATA = "tfds:imagenet2012"
FOLDER = "FOLDER"  # of an entry whose images have no name

# The augmentation that DeiT established; statistics are ImageNet's.
DEIT: Config = {
    "label_smoothing": 0.1,
    "interpolation": "bicubic",
    "policy": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "test_interpolation": "bicubic",
    **IMAGENET._asdict(),
}

REPMLPNET = ClassificationRecipe(
    name="repmlpnet_imagenet",
    reproduces="RepMLPNet, Table 2: ImageNet, 100 epochs",
    top1=top1_of("repmlpnet/table2/repmlpnet_*", "repmlpnet/table2/mlp_mixer_b16"),
    notes="The published command has a peak rate of 0.001. Warm-up rate and clipping "
    "are the published trainer's, as is RandAugment's form: two of 16 operations.",
    epochs=100,
    batch_size=256,
    learning_rate=2e-3,
    final_rate=0.0,
    warmup_epochs=10,
    warmup_rate=5e-7,
    rate_batch=256,
    scale_all=True,
    schedule_by="step",
    weight_decay=0.1,
    clip_norm=5.0,
    drop_path=0.0,
    **DEIT
    | {
        "interpolation": "bilinear",
        "policy": "repmlpnet-rand",
        "erasing": 0.0,
        "mixup": 0.4,
        "test_interpolation": "bilinear",
    },
)

RESMLP = ClassificationRecipe(
    name="resmlp_imagenet",
    reproduces="ResMLP, Table 1: ImageNet, 400 epochs",
    top1=top1_of("resmlp/table1/*", "convmlp/table3/resmlp_b24"),
    notes="The paper leaves batch and stochastic depth to DeiT's defaults, taken "
    "here; its first author gave a batch of 2048 at this rate and stochastic depth "
    "0.05 for S12 elsewhere (batch_size=2048 rate_batch=2048 drop_path=0.05). B24's "
    "81.0 is as others quote it. The published trainer runs its schedule an epoch "
    "late, and its LAMB clips the gradient's norm at 1, which the paper does not say.",
    epochs=400,
    batch_size=1024,
    optimizer="lamb",
    learning_rate=5e-3,
    final_rate=1e-5,
    warmup_epochs=5,
    warmup_rate=1e-6,
    rate_batch=1024,
    schedule_by="epoch",
    weight_decay=0.2,
    drop_path=0.1,
    ema=0.99996,
    repeats=3,
    test_crop=0.9,
    **DEIT,
)

CONVMLP = ClassificationRecipe(
    name="convmlp_imagenet",
    reproduces="ConvMLP, Table 3: ImageNet, 300 epochs",
    top1=top1_of("convmlp/table3/convmlp_*"),
    notes="Cool-down, warm-up rate and the average are the published configuration's.",
    epochs=300,
    cooldown_epochs=10,
    batch_size=1024,
    learning_rate=5e-4,
    final_rate=1e-5,
    warmup_epochs=5,
    warmup_rate=1e-4,
    schedule_by="epoch",
    weight_decay=0.05,
    drop_path=0.1,
    ema=0.99996,
    evaluate="ema",
    test_crop=0.9,
    **DEIT,
)

MSMLP = ClassificationRecipe(
    name="msmlp_imagenet",
    reproduces="MS-MLP, Tables 3 and 5: ImageNet, 300 epochs",
    top1=top1_of("msmlp/table3/msmlp_*", "msmlp/table5/*"),
    notes="The paper's appendix clips at 1 instead of 5; the published configuration "
    "warms up from 1e-6 and has stochastic depth 0.1/0.4/0.5 for T/S/B. The paper "
    "found the average better and reports the raw weights. Swin's and Focal's own "
    "figures are quoted there; their recipes are this one but for warm-up and rates' "
    "floors.",
    epochs=300,
    batch_size=1024,
    learning_rate=1e-3,
    final_rate=1e-5,
    warmup_epochs=20,
    warmup_rate=1e-5,
    rate_batch=1024,
    scale_all=True,
    schedule_by="step",
    weight_decay=0.05,
    clip_norm=5.0,
    ema=0.9999,
    test_crop=224 / 256,
    **DEIT,
)

SMLPNET = ClassificationRecipe(
    name="smlpnet_imagenet",
    reproduces="sMLPNet, Table 6: ImageNet, 300 epochs",
    top1=top1_of("smlpnet/table6/smlpnet_*"),
    notes="Warm-up, the weights of mixup and cutmix, erasing and the average are the "
    "published trainer's, which runs its schedule an epoch late.",
    epochs=300,
    batch_size=1024,
    learning_rate=1e-3,
    final_rate=1e-5,
    warmup_epochs=20,
    warmup_rate=1e-6,
    rate_batch=1024,
    schedule_by="epoch",
    weight_decay=0.05,
    ema=0.99996,
    repeats=3,
    test_crop=224 / 256,
    **DEIT,
)

# ConvMLP's fine-tuning; other papers that fine-tune leave theirs unstated.
FINETUNE: Config = {
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

_LARGE: Config = {"convmlp_l": {"batch_size": 512}}


def _finetuned(name, title, data, note="", by_arch=_LARGE, **changes):
    """Return the entry of fine-tuning on data that ResMLP's paper, or both, have."""
    top1 = top1_of(f"*/finetune_{name}/*")
    both = "convmlp_s" in top1
    return Entry(
        ClassificationRecipe(
            name=f"finetune_{name}",
            reproduces=("ConvMLP, Table 4, and " if both else "")
            + f"ResMLP, Table 3: {title} at 224",
            top1=top1,
            notes=(DEVICES if both else "") + note + UNSTATED,
            **FINETUNE | changes,
        ),
        data,
        by_arch if both else {},
    )


ENTRIES = (
    Entry(
        REPMLPNET,
        DATA,
        {"repmlpnet_*256": {"image_size": 256}},
    ),
    Entry(RESMLP, DATA),
    Entry(
        dataclasses.replace(
            RESMLP,
            name="resmlp_imagenet_distilled",
            reproduces="ResMLP, Table 2: ImageNet, distilled from RegNetY-16GF",
            top1=top1_of("resmlp/table4/s12_distilled")
            | {"resmlp_s24": 80.8, "resmlp_s36": 81.1, "resmlp_b24": 83.6},
            notes="The teacher's hard labels alone: ResMLP has one head. The table "
            "has S12; the others are the published weights'. " + RESMLP.notes,
            distillation="hard",
            distillation_alpha=1.0,
        ),
        DATA,
    ),
    Entry(CONVMLP, DATA),
    Entry(
        dataclasses.replace(
            CONVMLP,
            name="convmlp_ablation",
            reproduces="ConvMLP, Table 2: ImageNet, 100 epochs",
            top1=top1_of("convmlp/table2/plain_conv_depthwise"),
            notes="74.04 is of the table's last network at 100 epochs, whose first "
            "stage has two plain convolutions (8.73 M parameters); ConvMLP-S itself "
            "is there at 300 epochs, 76.81. Published on 4 devices.",
            epochs=100,
            learning_rate=1e-3,
        ),
        DATA,
    ),
    Entry(
        MSMLP,
        DATA,
        {
            arch: {"drop_path": {"t": 0.2, "s": 0.3, "b": 0.5}[arch[-1]]}
            for arch in MSMLP.top1
        },
    ),
    Entry(
        SMLPNET,
        DATA,
        {
            "smlpnet_t*": {"drop_path": 0.0},
            "smlpnet_s*": {"drop_path": 0.2},
            "smlpnet_b*": {"drop_path": 0.3},
        },
    ),
    Entry(
        ClassificationRecipe(
            name="cifar100_locality",
            reproduces="RepMLPNet, Table 4: CIFAR-100 with and without local branches",
            top1=top1_of("repmlpnet/table4/*_cifar", "repmlpnet/table4/resmlp_none"),
            notes="Accuracies are of the architectures as they are named: RepMLPNet "
            "with 1x1 and 3x3 branches, ResMLP without; by branches: `kmlp list "
            "--ablations repmlpnet/table4`. "
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
    _finetuned("cifar10", "CIFAR-10", "tfds:cifar10", **CIFAR10._asdict()),
    _finetuned("cifar100", "CIFAR-100", "tfds:cifar100", **CIFAR100._asdict()),
    _finetuned(
        "flowers102",
        "Flowers-102",
        "tfds:oxford_flowers102",
        "With the 1,020 training images of the usual split this is one step per epoch: "
        "lower batch_size there. ",
        {"convmlp_s": {"learning_rate": 5e-4}, **_LARGE},
        batch_size=768,
        final_rate=1e-8,
        **FLOWERS102._asdict(),
    ),
    _finetuned("cars", "Stanford Cars", "tfds:cars196"),
    _finetuned("inat18", "iNaturalist 2018", "tfds:i_naturalist2018"),
    _finetuned("inat19", "iNaturalist 2019", FOLDER),
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
