"""Policies: which operations apply to an image, how often and how strongly.

timm's RandAugment, and the policy that RepMLPNet was trained with.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from kmlp.errors import InputError, check_choice
from kmlp.training.input import policy_choices
from kmlp.training.input.mixing import compiled
from kmlp.training.input.policy_choices import Layer

REPMLPNET = "repmlpnet-rand"
# The share of geometric operations that interpolate by 4 x 4 pixels.
INTERPOLATIONS = {"bilinear": 0.0, "bicubic": 1.0, "random": 0.5}
# A level of ten is as strong as an operation's range goes.
TOP_LEVEL = 10
GREY = (128, 128, 128)
# timm takes the magnitude as uniform, not normal, from this deviation on.
UNIFORM_DEVIATION = 100
_STREAM = 1


@dataclasses.dataclass(frozen=True)
class Policy:
    """A number of operations, drawn with replacement.

    Attributes:
        values: Operations of pixel values by name: image, `Layer` -> image.
        geometric: Affine operations by name: `Layer`, height, width -> matrix.
        level: Function of draws in 0…1, float64, to levels.
        layers: Number of operations that an image meets.
        probability: Probability that each of them is carried out.
        fill: Colour of what comes from outside of the image.
        interpolation: Interpolation of the affine operations: `"bilinear"`,
            `"bicubic"`, or `"random"` for either at each.
    """

    values: dict[str, Callable]
    geometric: dict[str, Callable]
    level: Callable
    layers: int = 2
    probability: float = 0.5
    fill: tuple[int, ...] = GREY
    interpolation: str = "random"

    @property
    def operations(self) -> tuple[str, ...]:
        """Return the names in the order of `Layer.operation`."""
        return (*self.values, *self.geometric)

    def draw(self, seed: tf.Tensor) -> Layer:
        """Draw the layers of one image.

        Args:
            seed: Seed `(2,)`, integers.

        Returns:
            A `Layer` of tensors `(layers,)`.
        """
        seed = tf.random.fold_in(seed, _STREAM)
        draws = tf.random.stateless_uniform((7, self.layers), seed, dtype=tf.float64)
        operation, applied, level, sign, cubic, row, column = tf.unstack(draws)
        operation = tf.cast(operation * len(self.operations), tf.int32)
        return Layer(
            operation=tf.where(applied < self.probability, operation, -1),
            strength=self.level(level) / TOP_LEVEL,
            negative=sign < 0.5,
            cubic=cubic < INTERPOLATIONS[self.interpolation],
            row=row,
            column=column,
        )

    def apply(self, image: tf.Tensor, layers: Layer) -> tf.Tensor:
        """Carry out what was drawn.

        Args:
            image: Image `(H, W, 3)`, uint8.
            layers: A `Layer` of tensors `(layers,)`.

        Returns:
            Image `(H, W, 3)`, uint8.
        """

        def step(number: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            layer = tf.nest.map_structure(
                lambda values: tf.gather(values, number), layers
            )
            return number + 1, tf.ensure_shape(self._applied(image, layer), image.shape)

        # One layer's code for all: compilation takes its time.
        return tf.while_loop(
            lambda number, image: number < self.layers,
            step,
            (0, image),
            maximum_iterations=self.layers,
        )[1]

    def _applied(self, image, layer):
        def moved() -> tf.Tensor:
            height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64))
            matrices = [make(layer, height, width) for make in self.geometric.values()]
            matrix = tf.gather(matrices, layer.operation - len(self.values))
            return policy_choices.affine(image, matrix, self.fill, layer.cubic)

        def valued(operation: Callable) -> Callable[[], tf.Tensor]:
            return lambda: operation(image, layer)

        branches = [lambda: image, *map(valued, self.values.values()), moved]
        return tf.switch_case(
            tf.minimum(layer.operation + 1, len(branches) - 1), branches
        )


def policy(
    name: str, *, mean: Sequence[float] | None = None, interpolation: str = "random"
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the augmentation that a recipe names.

    Args:
        name: Name of the policy. `"repmlpnet-rand"`: two of sixteen operations, always,
            each at a level of 0…14. Or timm's "rand-…", such as "rand-m9-mstd0.5-inc1":
            of fifteen operations `n` (2) are drawn and carried out with probability `p`
            (0.5) each, at a level that is normal about `m` (10) with the deviation
            `mstd` (0; above 100: uniform in 0…m), clipped to 0…`mmax` (10). With `inc1`
            every operation changes more at higher levels.
        mean: Mean of the data, three numbers in 0…1: the colour of what comes from
            outside of the image; `None` for grey. RepMLPNet's is always grey.
        interpolation: Interpolation of geometric operations: `"bilinear"`,
            `"bicubic"` or `"random"`, which draws one of the two each time.
            RepMLPNet's is always random.

    Returns:
        A function of a uint8 image `(H, W, 3)` and an integer seed `(2,)` that gives
        the augmented image.

    Raises:
        InputError: If the name is not understood.

    References:
        Cubuk et al., "RandAugment: Practical automated data augmentation with a
        reduced search space"; timm's `rand_augment_transform`; RepMLPNet's published
        `RandAugPolicy`.
    """
    chosen = parse(name, mean=mean, interpolation=interpolation)
    apply = compiled(chosen.apply)
    return lambda image, seed: apply(image, chosen.draw(seed))


def parse(
    name: str, *, mean: Sequence[float] | None = None, interpolation: str = "random"
) -> Policy:
    """Return the `Policy` of a name; arguments and errors are those of `policy`."""
    check_choice(INTERPOLATIONS, interpolation=interpolation)
    if name == REPMLPNET:
        return Policy(
            policy_choices.REPMLPNET_CHOICES,
            policy_choices.GEOMETRIC,
            _level_below(15),
            probability=1.0,
        )
    options = _options(name)
    return Policy(
        policy_choices.RAND_INCREASING if options["inc"] else policy_choices.RAND,
        policy_choices.GEOMETRIC,
        _level_about(options["m"], options["mstd"], options["mmax"]),
        layers=int(options["n"]),
        probability=options["p"],
        fill=GREY if mean is None else tuple(min(255, round(255 * x)) for x in mean),
        interpolation=interpolation,
    )


def _options(name):
    """Return the numbers in timm's string, by letter."""
    options = {"m": TOP_LEVEL, "n": 2, "p": 0.5, "mstd": 0.0, "mmax": 10, "inc": 0}
    kind, *sections = str(name).split("-")
    given = [re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part) for part in sections]
    letters = [match[1] for match in given if match]
    known = kind == "rand" and None not in given and options.keys() >= set(letters)
    if known and len(letters) == len(set(letters)):
        options.update((match[1], float(match[2])) for match in given)
        if options["n"] in range(1, 17) and options["p"] <= 1 and options["inc"] <= 1:
            return options
    raise InputError(
        f'The policy must be "{REPMLPNET}" or "rand" followed by any of -mLEVEL, '
        "-nLAYERS (1…16), -pPROBABILITY, -mstdDEVIATION, -mmaxLEVEL, -inc0 or -inc1, "
        f'such as "rand-m9-mstd0.5-inc1". Received: {name!r}'
    )


def _level_below(count):
    """Return a function of draws to whole levels from zero, equally likely."""
    return lambda draws: tf.floor(draws * count)


def _level_about(mean, deviation, largest):
    """Return a function of draws to normal levels or uniform ones, clipped."""

    def level(draws: tf.Tensor) -> tf.Tensor:
        if deviation > UNIFORM_DEVIATION:
            levels = draws * mean
        elif deviation:
            levels = mean + deviation * tf.math.ndtri(draws)
        else:
            levels = tf.fill(tf.shape(draws), tf.cast(mean, draws.dtype))
        return tf.clip_by_value(levels, 0, largest)

    return level
