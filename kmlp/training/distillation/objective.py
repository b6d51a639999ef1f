"""The loss of a sample: its label, a teacher's answer, or a mixture of the two."""

import dataclasses
import math

from keras import ops

from kmlp.errors import InputError

KINDS = ("none", "hard", "soft")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Cross-entropy, with or without a teacher.

    With `CE` the cross-entropy of the targets as they come (smoothed and mixed):

    - `"none"`: `CE`.
    - `"hard"`: `(1 - alpha) CE + alpha CE(teacher's first class)`. The teacher's label
      is not smoothed, even where the targets are. ResMLP, which has one head and
      learns without labels, has `alpha=1`; DeiT has 0.5.
    - `"soft"`: `(1 - alpha) CE + alpha T² KL(teacher / T ‖ student / T)`, the
      divergence summed over the classes of a sample, as in the formula. DeiT's
      published code divides it by the number of classes besides; to follow that
      code rather than its paper, weigh with a smaller `alpha`.

    Args:
        kind: `"none"`, `"hard"` or `"soft"`.
        alpha: the teacher's share, 0…1.
        temperature: T of `"soft"`, positive.

    Raises:
        InputError: another value.

    Reference:
        DeiT (arXiv:2012.12877), section 4; ResMLP (arXiv:2105.03404), section 3.
    """

    kind: str = "none"
    alpha: float = 0.5
    temperature: float = 3.0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(
                f"Distillation is one of {', '.join(KINDS)}. Received: {self.kind!r}"
            )
        if not 0 <= self.alpha <= 1:
            raise InputError(
                "The teacher's share of the loss lies in 0…1. "
                f"Received: distillation_alpha={self.alpha!r}"
            )
        if not 0 < self.temperature < math.inf:
            raise InputError(
                "Distillation needs a positive temperature. "
                f"Received: temperature={self.temperature!r}"
            )

    @property
    def needs_teacher(self):
        """Whether the loss asks a teacher at all."""
        return self.kind != "none"

    def __call__(self, logits, targets, teacher_logits=None):
        """The loss of each sample.

        Args:
            logits: `(N, classes)`, of the student.
            targets: `(N, classes)` shares of the classes, summing to 1.
            teacher_logits: `(N, classes)`, or `None` with `"none"`.

        Returns:
            `(N,)` float32.
        """
        logits = ops.cast(logits, "float32")
        if not self.needs_teacher:
            return cross_entropy(logits, targets)
        if teacher_logits is None:
            raise InputError(
                f"{self.kind!r} distillation needs a teacher's logits. Received: None"
            )
        teacher_logits = ops.cast(teacher_logits, "float32")
        if self.kind == "hard":
            labels = ops.argmax(teacher_logits, axis=-1)
            taught = cross_entropy(logits, ops.one_hot(labels, logits.shape[-1]))
        else:
            taught = divergence(logits, teacher_logits, self.temperature)
        if self.alpha == 1:
            return taught
        return (1 - self.alpha) * cross_entropy(logits, targets) + self.alpha * taught


def cross_entropy(logits, targets):
    """`(N,)` of logits and shares of the classes, both `(N, classes)` float32."""
    targets = ops.cast(targets, "float32")
    return -ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def divergence(logits, teacher_logits, temperature):
    """`T² KL(teacher / T ‖ student / T)`, `(N,)`.

    The factor keeps the gradient's size whatever the temperature (Hinton et al.,
    arXiv:1503.02531).
    """
    student = ops.log_softmax(logits / temperature, axis=-1)
    teacher = ops.log_softmax(teacher_logits / temperature, axis=-1)
    per_class = ops.exp(teacher) * (teacher - student)
    return temperature**2 * ops.sum(per_class, axis=-1)
