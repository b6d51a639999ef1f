"""Distillation: the loss of a sample under a teacher, and the teacher's answers."""

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmlp.errors import InputError
from kmlp.training.teacher_networks import Network, open_network
from kmlp.typing import PathLike, Tensor

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
        kind: Kind of the loss, `"none"`, `"hard"` or `"soft"`.
        alpha: Share of the teacher, 0…1.
        temperature: T of `"soft"`, positive.

    Raises:
        InputError: If a value is another.

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
    def needs_teacher(self) -> bool:
        """Return whether the loss asks a teacher at all."""
        return self.kind != "none"

    def __call__(
        self, logits: Tensor, targets: Tensor, teacher_logits: Tensor | None = None
    ) -> Tensor:
        """Return the loss of each sample.

        Args:
            logits: Student's answers, `(N, classes)`.
            targets: Shares of the classes, `(N, classes)`, summing to 1.
            teacher_logits: Teacher's answers, `(N, classes)`; `None` with `"none"`.

        Returns:
            Losses `(N,)`, float32.
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


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return `(N,)` losses of logits and shares of the classes, both `(N, classes)`."""
    targets = ops.cast(targets, "float32")
    return -ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return `T² KL(teacher / T ‖ student / T)`, `(N,)`.

    The factor keeps the gradient's size whatever the temperature (Hinton et al.,
    arXiv:1503.02531).
    """
    student = ops.log_softmax(logits / temperature, axis=-1)
    teacher = ops.log_softmax(teacher_logits / temperature, axis=-1)
    per_class = ops.exp(teacher) * (teacher - student)
    return temperature**2 * ops.sum(per_class, axis=-1)


# Shares of a softmax at the least: their logarithm must be finite.
SMALLEST = float(np.finfo("float32").tiny)
UNIT = 1e-3  # how far the sum of probabilities may lie from 1


class Teacher:
    """A network that answers the student's images with logits, and never learns.

    Args:
        network: Network and how it wants its images.
        image_size: Height and width of the student's images.
        mean, std: Statistics with which the student's images are normalised.

    Attributes:
        name: Name as it was asked for.
        model: The `keras.Model`, or `None` for a SavedModel. An engine that traces
            may hand its variables in through `keras.StatelessScope`.
        image_size: Size `(height, width)` that the teacher sees.
        num_classes: Number of classes that it answers.
    """

    def __init__(
        self,
        network: Network,
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.name, self.model, self._network = network.name, network.model, network
        height, width = network.sides
        self.image_size = (height or image_size, width or image_size)
        self._resizes = self.image_size != (image_size, image_size)
        self._mean, self._std = np.asarray((mean, std), "float32")
        self._probabilities = False
        if network.classes is not None:
            self.num_classes = network.classes
        else:
            outputs = self._probe()
            self.num_classes = outputs.shape[-1]
            # In logits, to be all positive and sum to 1 would be a rare accident.
            self._probabilities = bool(
                np.all(outputs >= 0) and np.all(np.abs(outputs.sum(-1) - 1) < UNIT)
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Answer a batch in inference mode and without gradient.

        Args:
            images: Images `(N, H, W, 3)`, normalised as the student's.

        Returns:
            Logits `(N, classes)`, float32. Where the network ends in a softmax they are
            the logarithm of it, which is the logits up to a constant.
        """
        images = ops.cast(images, "float32")
        if self._resizes:
            images = ops.image.resize(
                images,
                self.image_size,
                interpolation="bilinear",
                antialias=True,
                data_format="channels_last",
            )
        images = self._network.prepare(images, self._mean, self._std)
        outputs = ops.cast(self._network.call(images), "float32")
        if self._probabilities:
            outputs = ops.log(ops.maximum(outputs, SMALLEST))
        return ops.stop_gradient(outputs)

    def _probe(self):
        """Return the answer to two images of noise, which shows what it is."""
        noise = np.random.default_rng(0).normal(size=(2, *self.image_size, 3))
        try:
            outputs = _ask(self, noise.astype("float32"))
        except Exception as error:
            raise InputError(
                "The teacher cannot answer images of "
                f"{self.image_size[0]}x{self.image_size[1]}: choose another. "
                f"Received: {self.name!r} ({error})"
            ) from error
        shape = tuple(outputs.shape)
        if len(shape) != 2:
            raise InputError(
                "A teacher answers with one vector of classes per image. "
                f"Received: {self.name!r}, with outputs of shape {shape}"
            )
        return ops.convert_to_numpy(outputs)


def _ask(function, images):
    """Call as an engine does: compiled, and on TensorFlow in a replica.

    Under JAX single operations take many seconds to compile; within a strategy a
    SavedModel answers nowhere but in a replica.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)(images)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.get_strategy()
        run = tf.function(lambda x: strategy.run(function, (x,)), autograph=False)
        return strategy.experimental_local_results(run(images))[0]
    return function(images)


def open_teacher(
    spec: PathLike,
    *,
    num_classes: int,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    class_names: Sequence[str] | None = None,
) -> Teacher:
    """Open a teacher and check that it can teach this student.

    Within `tf.distribute`, call this inside the strategy's scope.

    Args:
        spec: Path of a `.keras` file; folder of a SavedModel whose `serving_default`
            takes float images (TensorFlow only); a name of `keras.applications`, such
            as `resnet50`, with its ImageNet weights; or `NAME:FILE` with weights of
            that architecture in a file. What kmlp's own runs wrote beside a file or
            a SavedModel says how its images are normalised; without that, they are
            as the student's.
        num_classes: Number of the student's classes.
        image_size: Height and width of the student's images; a teacher that sees
            another size gets them resized.
        mean, std: Three numbers each, with which the student's images are normalised.
        class_names: Names of the student's classes; `None`: not compared.

    Raises:
        InputError: If there is nothing such, or it cannot be read or knows other
            classes than the student.
    """
    network = open_network(spec, num_classes)
    teacher = Teacher(network, image_size=image_size, mean=mean, std=std)
    if teacher.num_classes != num_classes:
        raise InputError(
            f"The teacher knows {teacher.num_classes:,} classes and the data have "
            f"{num_classes:,}: choose a teacher of the same classes. "
            f"Received: {spec!r}"
        )
    taught, learned = network.class_names or (), class_names or ()
    if taught and learned and tuple(taught) != tuple(learned):
        pairs = enumerate(zip(taught, learned))
        number = next((i for i, (one, other) in pairs if one != other), 0)
        raise InputError(
            "The teacher's classes are not the data's: choose a teacher that was "
            f"trained on the same. Received: {spec!r}, whose class {number} is "
            f"{taught[number]!r} and not {learned[number]!r}"
        )
    return teacher
