"""A recipe of detection or segmentation."""

import dataclasses
import types
from typing import Literal

from kmlp.errors import InputError
from kmlp.recipes.fields import Fields, Pair, Triple, show

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
class DenseRecipe(Fields):
    """How a detector or a segmenter is trained and tested.

    Attributes:
        name: of the recipe.
        reproduces: paper and table, in words.
        notes: what the paper leaves open, and where others differ from it.
        task: `"detection"` or `"segmentation"`.
        data: as `--data` takes it, such as `"coco:DIR"`.

        head: `"retinanet"`, `"mask_rcnn"` or `"cascade_mask_rcnn"`; `"semantic_fpn"`
            or `"upernet"`.
        epochs, steps: length of the run, by one of the two; the other is `None`.
        batch_size: images per update over all replicas.
        accumulate: micro-batches whose gradients make an update; divides
            `batch_size`.
        validate_every: epochs, or steps where the run is counted in steps; divides
            the run.

        optimizer: `"adamw"` or `"sgd"`.
        momentum: of SGD, in [0, 1).
        beta_1, beta_2: of AdamW's moments, in [0, 1).
        epsilon: of AdamW, above 0.
        weight_decay: of kernels, decoupled in AdamW; biases and norms have none.
        clip_norm: bound of the gradient's global norm; `None`: unbounded.

        learning_rate: peak of the schedule, above 0.
        schedule: `"step"` (a tenth at each milestone), `"poly"`, `"linear"` or
            `"cosine"`.
        milestones: epochs after which the rate drops.
        power: of `"poly"`, above 0.
        final_rate: where all but `"step"` end.
        warmup_steps: in which the rate rises linearly beside its decay.
        warmup_ratio: the first step's rate as a share, in [0, 1].
        drop_path: rate of stochastic depth, in [0, 1); `None`: the architecture's.
        sync_batchnorm: whether BatchNorm's statistics are of all replicas.

        image_size: height and width of the canvas that a detector sees, which makes
            pictures smaller that do not fit, or of a segmenter's crops.
        short_sides, long_side: detection: the short side is drawn from this range, at
            test it is the upper end, as far as the long side allows; the aspect is
            kept. `None`: as the canvas allows.
        resize_to: segmentation: long and short side to which the picture is fitted,
            times a factor drawn from `scale_range`; `None`: its own.
        scale_range: low and high.
        max_class_share: share of a crop that one class may take, in (0, 1].
        flip: probability of mirroring.
        photometric: whether brightness, contrast, saturation and hue are drawn.
        min_box: pixels; objects whose box is narrower or lower are left out.
        mask_size: side of the masks over their boxes that a detector learns from.
        max_objects: in an image; the largest are kept.
        mean, std: per channel, of images in 0…1.
        test_mode: segmentation: `"whole"` images or a window that slides, `"slide"`.
        test_size: height and width of the test image, or of the window; `None`: the
            image's own.
        test_stride: of the window, at most its size.

        model: further arguments of the backbone's class.
        head_arguments: those of the detector or segmenter.

    Raises:
        InputError: a value of the wrong type or out of range, or values that
            contradict.
    """

    name: str
    reproduces: str = ""
    notes: str = ""
    task: Literal["detection", "segmentation"]
    data: str = ""

    head: Literal[
        "retinanet", "mask_rcnn", "cascade_mask_rcnn", "semantic_fpn", "upernet"
    ]
    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 16
    accumulate: int = 1
    validate_every: int = 1

    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float | None = None

    learning_rate: float
    schedule: Literal["step", "poly", "linear", "cosine"]
    milestones: tuple[int, ...] = ()
    power: float = 0.9
    final_rate: float = 0.0
    warmup_steps: int = 0
    warmup_ratio: float = 1e-3
    drop_path: float | None = None
    sync_batchnorm: bool = False

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
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    test_mode: Literal["whole", "slide"] = "whole"
    test_size: Size | None = None
    test_stride: Size | None = None

    model: dict = dataclasses.field(default_factory=dict)
    head_arguments: dict = dataclasses.field(default_factory=dict)

    DESCRIPTIVE = ("name", "reproduces", "notes", "task", "data")
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
        (
            "epochs steps batch_size accumulate validate_every long_side mask_size "
            "max_objects",
            "of at least 1",
            lambda value: value >= 1,
        ),
        ("learning_rate epsilon clip_norm power", "above 0", lambda value: value > 0),
        (
            "weight_decay final_rate warmup_steps min_box",
            "of at least 0",
            lambda value: value >= 0,
        ),
        ("momentum beta_1 beta_2 drop_path", "in [0, 1)", lambda value: 0 <= value < 1),
        ("flip warmup_ratio", "in [0, 1]", lambda value: 0 <= value <= 1),
        ("max_class_share", "in (0, 1]", lambda value: 0 < value <= 1),
        (
            "image_size test_size test_stride",
            "of at least 1, height and width",
            lambda pair: min(pair) >= 1,
        ),
        (
            "resize_to",
            "of at least 1, the long side first",
            lambda pair: pair[0] >= pair[1] >= 1,
        ),
        (
            "short_sides",
            "of at least 1, low and high",
            lambda pair: 1 <= pair[0] <= pair[1],
        ),
        (
            "scale_range",
            "above 0, low and high",
            lambda pair: 0 < pair[0] <= pair[1],
        ),
        (
            "milestones",
            "of at least 1 that rise",
            lambda all_: list(all_) == sorted(set(all_)) and min(all_, default=1) >= 1,
        ),
        ("mean", "in [0, 1]", lambda triple: all(0 <= value <= 1 for value in triple)),
        ("std", "above 0", lambda triple: min(triple) > 0),
    )

    def length(self, steps_per_epoch):
        """The run as a `Plan` has it: validations, and steps before each.

        Args:
            steps_per_epoch: updates that show every training image once.
        """
        if self.steps is not None:
            return self.steps // self.validate_every, self.validate_every
        return self.epochs // self.validate_every, self.validate_every * steps_per_epoch

    def shortened(self, length):
        """The recipe with another number of epochs, or of steps where it counts so.

        Milestones and warm-up keep their share, validations their distance where that
        divides the length; else there is one, at the end.
        """
        unit = "epochs" if self.steps is None else "steps"
        share = length / getattr(self, unit)
        changes = {unit: length, "warmup_steps": round(self.warmup_steps * share)}
        drops = {max(1, round(epoch * share)) for epoch in self.milestones}
        changes["milestones"] = tuple(sorted(drops))
        if length % self.validate_every:
            changes["validate_every"] = length
        return dataclasses.replace(self, **changes)

    def _check_together(self):
        self._check_common()
        self._check_task()
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "A run is counted in epochs or in steps: set one of them, and none for "
                f"the other. Received: epochs={show(self.epochs)}, "
                f"steps={show(self.steps)}"
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
            raise InputError(
                "test_mode=slide needs test_size and a test_stride of at most as much. "
                f"Received: test_size={show(self.test_size)}, "
                f"test_stride={show(self.test_stride)}"
            )

    def _check_task(self):
        if self.head not in HEADS[self.task]:
            raise InputError(
                f"A head for {self.task} is {' or '.join(HEADS[self.task])}. "
                f"Received: head={self.head}"
            )
        others = _SEGMENTATION if self.task == "detection" else _DETECTION
        for field, unused in others.items():
            if getattr(self, field) != unused:
                raise InputError(
                    f"{field} has no meaning in {self.task}: leave it at "
                    f"{show(unused)}. Received: {field}={show(getattr(self, field))}"
                )
        if (self.short_sides is None) != (self.long_side is None):
            raise InputError(
                "short_sides and long_side are given together, or neither. Received: "
                f"short_sides={show(self.short_sides)}, "
                f"long_side={show(self.long_side)}"
            )

    def _check_rate(self):
        if (self.schedule == "step") != bool(self.milestones):
            raise InputError(
                "milestones belong to schedule=step, which needs them. Received: "
                f"schedule={self.schedule}, milestones={show(self.milestones)}"
            )
        if self.milestones and self.epochs is None:
            raise InputError(
                "milestones are epochs: set epochs in place of steps. Received: "
                f"milestones={show(self.milestones)}, steps={self.steps}"
            )
        if self.milestones and self.milestones[-1] > self.epochs:
            raise InputError(
                "The last milestone is beyond the run: lower milestones. Received: "
                f"milestones={show(self.milestones)}, epochs={self.epochs}"
            )
        if self.steps is not None and self.warmup_steps > self.steps:
            raise InputError(
                "The warm-up is longer than the run: lower warmup_steps. Received: "
                f"warmup_steps={self.warmup_steps}, steps={self.steps}"
            )
