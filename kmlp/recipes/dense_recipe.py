"""Hold a recipe of detection or segmentation."""

import dataclasses
import types
from typing import Literal

from kmlp.errors import InputError
from kmlp.recipes.recipe import Pair, Recipe, Triple, show
from kmlp.statistics import IMAGENET
from kmlp.typing import Config

Size = tuple[int, int]
HEADS = {
    "detection": ("retinanet", "mask_rcnn", "cascade_mask_rcnn"),
    "segmentation": ("semantic_fpn", "upernet"),
}
# Fields that only one of the tasks reads, and what they are there otherwise.
_DETECTION = {"short_sides": None, "long_side": None}
_SEGMENTATION = {
    "resize_to": None,
    "scale_range": (1.0, 1.0),
    "max_class_share": 1.0,
    "test_mode": "whole",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseRecipe(Recipe):
    """Hold how a detector or a segmenter is trained and tested.

    The fields that all tasks share are described in `Recipe`.

    Attributes:
        task: Task, `"detection"` or `"segmentation"`.
        data: Data, as `--data` takes it, such as `"coco:DIR"`.

        head: Head, `"retinanet"`, `"mask_rcnn"` or `"cascade_mask_rcnn"`;
            `"semantic_fpn"` or `"upernet"`.
        epochs, steps: Length of the run, by one of the two; the other is `None`.
        validate_every: Epochs, or steps where the run is counted in steps; divides
            the run.

        optimizer: Optimizer, `"adamw"` or `"sgd"`.
        momentum: Momentum of SGD, in [0, 1).

        schedule: Shape of the rate, `"step"` (a tenth at each milestone), `"poly"`,
            `"linear"` or `"cosine"`.
        milestones: Epochs after which the rate drops.
        power: Exponent of `"poly"`, above 0.
        warmup_steps: Steps in which the rate rises linearly beside its decay.
        warmup_ratio: First step's rate as a share, in [0, 1].

        image_size: Height and width of the canvas that a detector sees, which makes
            pictures smaller that do not fit, or of a segmenter's crops.
        short_sides, long_side: Sides in detection: the short side is drawn from
            this range, at test it is the upper end, as far as the long side allows; the
            aspect is kept. `None`: as the canvas allows.
        resize_to: Size in segmentation: long and short side to which the picture
            is fitted, times a factor drawn from `scale_range`; `None`: its own.
        scale_range: Factors, low and high.
        max_class_share: Share of a crop that one class may take, in (0, 1].
        photometric: Whether brightness, contrast, saturation and hue are drawn.
        min_box: Pixels; objects whose box is narrower or lower are left out.
        mask_size: Side of the masks over their boxes that a detector learns from.
        max_objects: Objects in an image; the largest are kept.
        test_mode: Test in segmentation: `"whole"` images or a window that
            slides, `"slide"`.
        test_size: Height and width of the test image, or of the window; `None`: the
            image's own.
        test_stride: Stride of the window, at most its size.

        head_arguments: Arguments of the detector or segmenter.

    Raises:
        InputError: If a value has the wrong type or is out of range, or if values
            contradict.
    """

    task: Literal["detection", "segmentation"]
    data: str = ""

    head: Literal[
        "retinanet", "mask_rcnn", "cascade_mask_rcnn", "semantic_fpn", "upernet"
    ]
    steps: int | None = None
    batch_size: int = 16
    validate_every: int = 1

    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9

    schedule: Literal["step", "poly", "linear", "cosine"]
    milestones: tuple[int, ...] = ()
    power: float = 0.9
    warmup_steps: int = 0
    warmup_ratio: float = 1e-3

    image_size: Size
    short_sides: Size | None = None
    long_side: int | None = None
    resize_to: Size | None = None
    scale_range: Pair = (1.0, 1.0)
    max_class_share: float = 1.0
    flip: float = 0.5
    photometric: bool = False
    min_box: float = 1.0
    mask_size: int = 112
    max_objects: int = 100
    mean: Triple = IMAGENET.mean
    std: Triple = IMAGENET.std
    test_mode: Literal["whole", "slide"] = "whole"
    test_size: Size | None = None
    test_stride: Size | None = None

    head_arguments: dict = dataclasses.field(default_factory=dict)

    DESCRIPTIVE = (*Recipe.DESCRIPTIVE, "task", "data")
    GROUPS = types.MappingProxyType(
        {
            "length": "head epochs steps batch_size accumulate validate_every",
            "optimizer": "optimizer momentum beta_1 beta_2 epsilon weight_decay "
            "clip_norm",
            "rate": "learning_rate schedule milestones power final_rate warmup_steps "
            "warmup_ratio",
            "regularisation": "drop_path sync_batchnorm",
            "images": "image_size short_sides long_side resize_to scale_range "
            "max_class_share flip photometric min_box mask_size max_objects mean std",
            "test": "test_mode test_size test_stride",
        }
    )
    RANGES = (
        *Recipe.RANGES,
        ("steps validate_every long_side mask_size max_objects", "of at least 1"),
        ("power", "above 0"),
        ("warmup_steps min_box", "of at least 0"),
        ("momentum", "in [0, 1)"),
        ("warmup_ratio", "in [0, 1]"),
        ("max_class_share", "in (0, 1]"),
        ("image_size test_size test_stride", "of at least 1, height and width"),
        ("resize_to", "of at least 1, the long side first"),
        ("short_sides", "of at least 1, low and high"),
        ("scale_range", "above 0, low and high"),
        ("milestones", "of at least 1 that rise"),
    )

    def length(self, steps_per_epoch: int) -> tuple[int, int]:
        """Return the run as a `Plan` has it: validations, and steps before each.

        Args:
            steps_per_epoch: Updates that show every training image once.
        """
        if self.steps is not None:
            return self.steps // self.validate_every, self.validate_every
        rounds = (self.epochs or 0) // self.validate_every
        return rounds, self.validate_every * steps_per_epoch

    def shortened(self, length: int) -> "DenseRecipe":
        """Return the recipe with another number of epochs, or of the steps it counts.

        Milestones and warm-up keep their share, validations their distance where that
        divides the length; else there is one, at the end.
        """
        unit = "epochs" if self.steps is None else "steps"
        share = length / getattr(self, unit)
        changes: Config = {
            unit: length,
            "warmup_steps": round(self.warmup_steps * share),
        }
        drops = {max(1, round(epoch * share)) for epoch in self.milestones}
        changes["milestones"] = tuple(sorted(drops))
        if length % self.validate_every:
            changes["validate_every"] = length
        return dataclasses.replace(self, **changes)

    def _check_together(self):
        super()._check_together()
        self._check_task()
        if (self.epochs is None) == (self.steps is None):
            self.refuse(
                "A run is counted in epochs or in steps: set one of them, and none for "
                "the other.",
                "epochs",
                "steps",
            )
        length = self.epochs or self.steps
        if length % self.validate_every:
            raise InputError(
                "validate_every must divide the run. Received: "
                f"validate_every={self.validate_every} of {length}"
            )
        self._check_rate()
        if self.test_mode == "slide" and not (
            self.test_size
            and self.test_stride
            and all(s <= w for s, w in zip(self.test_stride, self.test_size))
        ):
            problem = "test_mode=slide needs test_size and a test_stride of at most as"
            self.refuse(f"{problem} much.", "test_size", "test_stride")

    def _check_task(self):
        if self.head not in HEADS[self.task]:
            heads = " or ".join(HEADS[self.task])
            self.refuse(f"A head for {self.task} is {heads}.", "head")
        others = _SEGMENTATION if self.task == "detection" else _DETECTION
        for field, unused in others.items():
            if getattr(self, field) != unused:
                problem = f"{field} has no meaning in {self.task}: leave it at"
                self.refuse(f"{problem} {show(unused)}.", field)
        self._check_both("short_sides", "long_side")

    def _check_rate(self):
        if (self.schedule == "step") != bool(self.milestones):
            problem = "milestones belong to schedule=step, which needs them."
            self.refuse(problem, "schedule", "milestones")
        if self.milestones and self.epochs is None:
            problem = "milestones are epochs: set epochs in place of steps."
            self.refuse(problem, "milestones", "steps")
        if self.milestones and self.milestones[-1] > self.epochs:
            problem = "The last milestone is beyond the run: lower milestones."
            self.refuse(problem, "milestones", "epochs")
        if self.steps is not None and self.warmup_steps > self.steps:
            problem = "The warm-up is longer than the run: lower warmup_steps."
            self.refuse(problem, "warmup_steps", "steps")
