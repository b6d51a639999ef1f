"""Hold a recipe of classification, and what differs for some architectures."""

import dataclasses
import fnmatch
import types
from typing import Literal

from kmlp.errors import InputError
from kmlp.recipes.recipe import Pair, Recipe, Triple
from kmlp.typing import Config

# Recipes that leave `epochs` open train for as many as show `images_shown` images.
FEWEST_EPOCHS, MOST_EPOCHS = 5, 20
# Share of the epochs in which the rate warms up where `warmup_epochs` is open.
WARMUP_SHARE = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassificationRecipe(Recipe):
    """Hold how a classifier is trained and tested.

    The fields that all tasks share are described in `Recipe`.

    Attributes:
        top1: Top-1 `{architecture: percent}` that the paper reports.
        images_shown: Images that a run of open length shows, within 5…20 epochs.
        cooldown_epochs: Epochs at the final rate, after the cosine.
        optimizer: Optimizer, `"adamw"` or `"lamb"`.

        warmup_epochs: Epochs in which the rate rises linearly, may be a fraction;
            `None`: a tenth of `epochs`.
        warmup_rate: Rate where the warm-up begins.
        cosine_from: Start of the cosine. `"start"`: the cosine is counted from step 0,
            so that it leaves the warm-up a little under the peak; `"warmup"`: from its
            end.
        schedule_by: Interval at which the rate changes, `"step"` or `"epoch"`.
        rate_batch: Batch for which the peak is quoted: at others it scales in
            proportion; `None`: it stands.
        scale_all: Whether warm-up and final rate scale too.

        label_smoothing: Share of a label spread over all classes, in [0, 1).
        ema: Decay of the averaged weights, in [0, 1); `None`: no average.
        evaluate: Weights to evaluate: `"raw"` ones or their average, `"ema"`.

        image_size: Height and width that the network sees.
        crop: Kind of the training crop, `"resized"` (random area and aspect), `"pad"`
            (by an eighth, then a random window), `"shift"` or `"none"`.
        crop_scale, crop_ratio: Area and aspect of a `"resized"` crop, low and high.
        interpolation: Interpolation, `"bilinear"`, `"bicubic"` or `"random"` (either).
        flip: Probability of mirroring; `None`: a half where the data allow it.
        policy: RandAugment's, such as `"rand-m9-mstd0.5-inc1"`; `None`: none.
        erasing: Probability of erasing a box.
        repeats: Times that an epoch draws each of its images.
        mixup, cutmix: Parameter of their Beta distribution; 0: off.
        mix_probability: Probability of mixing a batch.
        switch_probability: Probability of CutMix where there is mixup too.
        mean, std: Statistics per channel, of images in 0…1; `None`: the data's own.
        test_crop: Side of the centre crop for the shorter side, in (0, 1].
        test_interpolation: Interpolation of that resizing, `"bilinear"` or `"bicubic"`.

        distillation: Distillation: `"none"`, `"hard"` (the teacher's labels) or
            `"soft"`.
        teacher: A `.keras` file, SavedModel or `keras.applications` name.
        distillation_alpha: Weight of the teacher beside the labels, in [0, 1].
        temperature: Temperature of soft distillation, above 0.

    Raises:
        InputError: If a value has the wrong type or is out of range, or if values
            contradict.
    """

    task = "classification"
    top1: dict = dataclasses.field(default_factory=dict)

    images_shown: int | None = None
    cooldown_epochs: int = 0

    optimizer: Literal["adamw", "lamb"] = "adamw"

    warmup_epochs: float | None = 0.0
    warmup_rate: float = 0.0
    cosine_from: Literal["start", "warmup"] = "start"
    schedule_by: Literal["step", "epoch"] = "step"
    rate_batch: int | None = None
    scale_all: bool = False

    label_smoothing: float = 0.0
    ema: float | None = None
    evaluate: Literal["raw", "ema"] = "raw"

    image_size: int = 224
    crop: Literal["resized", "pad", "shift", "none"] = "resized"
    crop_scale: Pair = (0.08, 1.0)
    crop_ratio: Pair = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic", "random"] = "bilinear"
    policy: str | None = None
    erasing: float = 0.0
    repeats: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0
    switch_probability: float = 0.5
    test_crop: float = 1.0
    test_interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    distillation: Literal["none", "hard", "soft"] = "none"
    teacher: str | None = None
    distillation_alpha: float = 0.5
    temperature: float = 3.0

    DESCRIPTIVE = ("name", "reproduces", "top1", "notes")
    GROUPS = types.MappingProxyType(
        {
            "length": "epochs cooldown_epochs batch_size accumulate",
            "optimizer": "optimizer weight_decay beta_1 beta_2 epsilon clip_norm",
            "rate": "learning_rate final_rate warmup_epochs warmup_rate cosine_from "
            "schedule_by rate_batch scale_all",
            "regularisation": "label_smoothing drop_path ema evaluate sync_batchnorm",
            "images": "image_size crop crop_scale crop_ratio interpolation flip policy "
            "erasing repeats mixup cutmix mix_probability switch_probability mean std",
            "test": "test_crop test_interpolation",
            "distillation": "distillation teacher distillation_alpha temperature",
        }
    )
    RANGES = (
        *Recipe.RANGES,
        ("images_shown rate_batch image_size repeats", "of at least 1"),
        ("temperature", "above 0"),
        ("cooldown_epochs warmup_epochs warmup_rate mixup cutmix", "of at least 0"),
        ("label_smoothing ema", "in [0, 1)"),
        ("erasing mix_probability switch_probability distillation_alpha", "in [0, 1]"),
        ("test_crop", "in (0, 1]"),
        ("crop_scale", "in (0, 1], low and high"),
        ("crop_ratio", "above 0, low and high"),
    )

    def shortened(self, length: int) -> "ClassificationRecipe":
        """Return the recipe's schedule in another number of epochs.

        Warm-up and cool-down keep their share. A warm-up of less than two epochs is
        taken by step: by epoch, it would hold one of them at its first rate.
        """
        changes: Config = {"epochs": length}
        if self.epochs is not None:
            share = length / self.epochs
            changes["cooldown_epochs"] = round(self.cooldown_epochs * share)
            if self.warmup_epochs:
                changes["warmup_epochs"] = self.warmup_epochs * share
                if changes["warmup_epochs"] < min(2, self.warmup_epochs):
                    changes["schedule_by"] = "step"
        return dataclasses.replace(self, **changes)

    def scaled_rates(
        self, global_batch: int | None = None
    ) -> tuple[float, float, float]:
        """Return `(peak, warm-up, final)` rate for a batch over all replicas.

        Args:
            global_batch: Images per update; `None`: the recipe's.
        """
        factor = 1.0
        if self.rate_batch is not None:
            factor = (global_batch or self.batch_size) / self.rate_batch
        others = factor if self.scale_all else 1.0
        peak = self.learning_rate * factor
        return peak, self.warmup_rate * others, self.final_rate * others

    def resolved(
        self,
        *,
        images: int,
        flip: bool = True,
        mean: Triple | None = None,
        std: Triple | None = None,
    ) -> "ClassificationRecipe":
        """Return the recipe for a data set, with nothing left open.

        Args:
            images: Number of training images.
            flip: Whether a mirrored image is as good an example.
            mean, std: Statistics of the data, for recipes that have none.

        Raises:
            InputError: If the recipe has no epochs, or a teacher or distillation
                lacks the other.
        """
        epochs = self.epochs
        if epochs is None:
            if self.images_shown is None:
                raise InputError(f"{self.name} leaves the epochs open: set epochs.")
            shows = round(self.images_shown / images)
            epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, shows))
        if self.distillation != "none" and self.teacher is None:
            self.refuse(
                f"{self.name} learns from a teacher: set teacher to a .keras file, a "
                "SavedModel or a keras.applications name.",
                "distillation",
                "teacher",
            )
        if self.distillation == "none" and self.teacher is not None:
            problem = "A teacher needs distillation=hard or soft."
            self.refuse(problem, "distillation", "teacher")
        changes: Config = {"epochs": epochs}
        if self.warmup_epochs is None:
            changes["warmup_epochs"] = WARMUP_SHARE * epochs
        if self.flip is None:
            changes["flip"] = 0.5 if flip else 0.0
        if self.mean is None and mean is not None:
            changes.update(mean=mean, std=std)
        return dataclasses.replace(self, **changes)

    def _check_together(self):
        super()._check_together()
        if self.evaluate == "ema" and self.ema is None:
            problem = "evaluate=ema needs a decay, such as ema=0.9999."
            self.refuse(problem, "evaluate", "ema")
        if self.epochs and (self.warmup_epochs or 0) > self.epochs:
            problem = "The warm-up is longer than the schedule: lower warmup_epochs."
            self.refuse(problem, "warmup_epochs", "epochs")


@dataclasses.dataclass(frozen=True)
class Entry:
    """Pair a recipe with what differs for some architectures.

    Attributes:
        recipe: Recipe for an architecture that no pattern fits.
        data: Data that it is for, as `--data` takes it; `""`: any.
        by_arch: Changes, `{shell pattern: {field: value}}`; of several that fit, the
            later ones count.
    """

    recipe: ClassificationRecipe
    data: str = ""
    by_arch: dict = dataclasses.field(default_factory=dict)

    def of(self, arch: str) -> ClassificationRecipe:
        """Return the recipe of an architecture."""
        changes: Config = {}
        for pattern, fields in self.by_arch.items():
            if fnmatch.fnmatchcase(arch, pattern):
                changes |= fields
        return dataclasses.replace(self.recipe, **changes)
