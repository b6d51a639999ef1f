"""A training recipe: everything that a paper says, or leaves open, about training."""

import dataclasses
import types
from typing import Literal

from kmlp.errors import InputError
from kmlp.recipes.fields import Fields, Pair, Triple, show

# What says which recipe it is, not how it trains.
DESCRIPTIVE = ("name", "reproduces", "top1", "notes")
# Fields, what they must be as words behind the type, and as a condition.
RANGES = (
    (
        "epochs images_shown batch_size accumulate rate_batch image_size repeats",
        "of at least 1",
        lambda value: value >= 1,
    ),
    (
        "learning_rate epsilon clip_norm temperature",
        "above 0",
        lambda value: value > 0,
    ),
    (
        "cooldown_epochs weight_decay final_rate warmup_epochs warmup_rate mixup "
        "cutmix",
        "of at least 0",
        lambda value: value >= 0,
    ),
    (
        "beta_1 beta_2 label_smoothing drop_path ema",
        "in [0, 1)",
        lambda value: 0 <= value < 1,
    ),
    (
        "flip erasing mix_probability switch_probability distillation_alpha",
        "in [0, 1]",
        lambda value: 0 <= value <= 1,
    ),
    ("test_crop", "in (0, 1]", lambda value: 0 < value <= 1),
    (
        "crop_scale",
        "in (0, 1], low and high",
        lambda pair: 0 < pair[0] <= pair[1] <= 1,
    ),
    ("crop_ratio", "above 0, low and high", lambda pair: 0 < pair[0] <= pair[1]),
    ("mean", "in [0, 1]", lambda triple: all(0 <= value <= 1 for value in triple)),
    ("std", "above 0", lambda triple: min(triple) > 0),
)
# How a recipe is shown.
GROUPS = {
    "length": "epochs cooldown_epochs batch_size accumulate",
    "optimizer": "optimizer weight_decay beta_1 beta_2 epsilon clip_norm",
    "rate": "learning_rate final_rate warmup_epochs warmup_rate cosine_from "
    "schedule_by rate_batch scale_all",
    "regularisation": "label_smoothing drop_path ema evaluate sync_batchnorm",
    "images": "image_size crop crop_scale crop_ratio interpolation flip policy erasing "
    "repeats mixup cutmix mix_probability switch_probability mean std",
    "test": "test_crop test_interpolation",
    "distillation": "distillation teacher distillation_alpha temperature",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Fields):
    """How a network is trained and tested.

    Attributes:
        name: of the recipe.
        reproduces: paper and table, in words.
        top1: `{architecture: percent}` that the paper reports.
        notes: what the paper leaves open, and where others differ from it.

        epochs: of the cosine, 1 or more; `None`: by `images_shown`.
        images_shown: images that a run of open length shows, within 5…20 epochs.
        cooldown_epochs: at the final rate, after the cosine.
        batch_size: images per update over all replicas.
        accumulate: micro-batches whose gradients make an update; divides
            `batch_size`.

        optimizer: `"adamw"` or `"lamb"`.
        beta_1, beta_2: decay of the moments, in [0, 1).
        epsilon: beside the second moment's root, above 0.
        weight_decay: of kernels, decoupled; biases, norms and scales have none.
        clip_norm: bound of the gradient's global norm; `None`: unbounded.

        learning_rate: peak of the schedule, above 0.
        final_rate: where the cosine ends, and of the cool-down.
        warmup_epochs: in which the rate rises linearly, may be a fraction; `None`:
            a tenth of `epochs`.
        warmup_rate: where the warm-up begins.
        cosine_from: `"start"`: the cosine is counted from step 0, so that it leaves
            the warm-up a little under the peak; `"warmup"`: from its end.
        schedule_by: `"step"` or `"epoch"`, how often the rate changes.
        rate_batch: batch for which the peak is quoted: at others it scales in
            proportion; `None`: it stands.
        scale_all: whether warm-up and final rate scale too.

        label_smoothing: share of a label spread over all classes, in [0, 1).
        drop_path: rate of stochastic depth, in [0, 1); `None`: the architecture's.
        ema: decay of the averaged weights, in [0, 1); `None`: no average.
        evaluate: `"raw"` weights or their average, `"ema"`.
        sync_batchnorm: whether BatchNorm's statistics are of all replicas.

        image_size: height and width that the network sees.
        crop: of training images, `"resized"` (random area and aspect), `"pad"` (by
            an eighth, then a random window), `"shift"` or `"none"`.
        crop_scale, crop_ratio: area and aspect of a `"resized"` crop, low and high.
        interpolation: `"bilinear"`, `"bicubic"` or `"random"` (either).
        flip: probability of mirroring; `None`: a half where the data allow it.
        policy: of RandAugment, such as `"rand-m9-mstd0.5-inc1"`; `None`: none.
        erasing: probability of erasing a box.
        repeats: how often an epoch draws each of its images.
        mixup, cutmix: parameter of their Beta distribution; 0: off.
        mix_probability: of mixing a batch.
        switch_probability: of CutMix where there is mixup too.
        mean, std: per channel, of images in 0…1; `None`: the data's own.
        test_crop: side of the centre crop for the shorter side, in (0, 1].
        test_interpolation: `"bilinear"` or `"bicubic"`.

        distillation: `"none"`, `"hard"` (the teacher's labels) or `"soft"`.
        teacher: a `.keras` file, SavedModel or `keras.applications` name.
        distillation_alpha: weight of the teacher beside the labels, in [0, 1].
        temperature: of soft distillation, above 0.

        model: further arguments of the architecture's class.

    Raises:
        InputError: a value of the wrong type or out of range, or values that
            contradict.
    """

    name: str
    reproduces: str = ""
    top1: dict = dataclasses.field(default_factory=dict)
    notes: str = ""

    epochs: int | None = None
    images_shown: int | None = None
    cooldown_epochs: int = 0
    batch_size: int
    accumulate: int = 1

    optimizer: Literal["adamw", "lamb"] = "adamw"
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None

    learning_rate: float
    final_rate: float = 0.0
    warmup_epochs: float | None = 0.0
    warmup_rate: float = 0.0
    cosine_from: Literal["start", "warmup"] = "start"
    schedule_by: Literal["step", "epoch"] = "step"
    rate_batch: int | None = None
    scale_all: bool = False

    label_smoothing: float = 0.0
    drop_path: float | None = None
    ema: float | None = None
    evaluate: Literal["raw", "ema"] = "raw"
    sync_batchnorm: bool = False

    image_size: int = 224
    crop: Literal["resized", "pad", "shift", "none"] = "resized"
    crop_scale: Pair = (0.08, 1.0)
    crop_ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    flip: float | None = 0.5
    policy: str | None = None
    erasing: float = 0.0
    repeats: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    mean: Triple | None = None
    std: Triple | None = None
    test_crop: float = 1.0
    test_interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    distillation: Literal["none", "hard", "soft"] = "none"
    teacher: str | None = None
    distillation_alpha: float = 0.5
    temperature: float = 3.0

    model: dict = dataclasses.field(default_factory=dict)

    DESCRIPTIVE = DESCRIPTIVE
    RANGES = RANGES
    GROUPS = types.MappingProxyType(GROUPS)

    def _check_together(self):
        self._check_common()
        if self.evaluate == "ema" and self.ema is None:
            raise InputError(
                "evaluate=ema needs a decay, such as ema=0.9999. Received: "
                "evaluate=ema, ema=none"
            )
        if self.epochs and (self.warmup_epochs or 0) > self.epochs:
            raise InputError(
                "The warm-up is longer than the schedule: lower warmup_epochs. "
                f"Received: warmup_epochs={show(self.warmup_epochs)}, "
                f"epochs={self.epochs}"
            )
