"""The base model of every family, and checks that the families share."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kmlp.errors import InputError
from kmlp.layers.head import ClassifierHead
from kmlp.layers.layer import pair, recorded_arguments
from kmlp.models.configured import ConfiguredModel
from kmlp.typing import PathLike, Shape, Tensor


class VisionMLP(ConfiguredModel, abstract=True):
    """A functional model that knows its configuration and its pyramid.

    A family's constructor builds the graph up to the last map and hands it over; the
    head is added here. The arguments that its signature names, `num_classes`,
    `include_top` and `head_activation` among them, become attributes and the
    serialised configuration.

    Args:
        inputs: Image tensor.
        features: Map of the last stage, the output without a head.
        pyramid: Map of each stage by the logarithm of its stride, `{"P2": KerasTensor,
            …}`.
        head: Arguments of the `ClassifierHead` that the family fixes.
        name: Name of the model.
        dtype: Dtype policy of the model.
        **settled: Arguments of the family whose final values its constructor worked
            out.

    Attributes:
        pyramid_outputs: Maps of the pyramid, as passed.
    """

    # Set by `kmlp.pretrained`, which stands above; people look for it on the model.
    _save_preset: Any = None

    def __init__(self, inputs, features, *, pyramid, head, name, dtype, **settled):
        config = {**recorded_arguments(self), **settled}
        config["input_shape"] = tuple(inputs.shape[1:])
        outputs = features
        if config["include_top"]:
            outputs = ClassifierHead(
                config["num_classes"],
                activation=config["head_activation"],
                name="head",
                dtype=dtype,
                **head,
            )(features)
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.pyramid_outputs = pyramid
        self._keep(config, dtype, "input_shape")  # Keras' own has the batch

    def save_preset(
        self,
        folder: PathLike,
        *,
        preprocessing: Any = None,
        class_names: Sequence[str] | None = None,
    ) -> Path:
        """Save weights, configuration, preprocessing and class names in a folder.

        `kmlp.create_model(weights=folder)` brings all of it back.

        Args:
            folder: Folder, made where it is missing; a preset in it is replaced.
            preprocessing: Preparation of the images, a
                `kmlp.preprocessing.Preprocessing`; `None`: the model's.
            class_names: Names in the order of the outputs; `None`: the model's.

        Returns:
            The `pathlib.Path` of the folder.

        Raises:
            InputError: If names or preprocessing do not fit the model.
            OSError: If the folder cannot be written.
        """
        if self._save_preset is None:
            # The face is still unused if a family's module alone was imported.
            sys.modules["kmlp"].pretrained  # noqa: B018
        return self._save_preset(
            folder, preprocessing=preprocessing, class_names=class_names
        )


def image_input(
    input_shape: Shape, *, fixed: bool, multiple: Sequence[int] | None = None
) -> Tensor:
    """Return the input tensor of an image model.

    Args:
        input_shape: Shape `(H, W, C)`; sizes may be `None` unless `fixed`.
        fixed: Whether the network needs known sizes.
        multiple: Sizes `(h, w)` whose multiples the sizes must be, or `None`.

    Raises:
        InputError: If there are not three entries, or sizes are unknown that must be
            known, or do not fit; the message names the nearest that do.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or shape[2] is None:
        raise InputError(
            "`input_shape` is (height, width, channels). "
            f"Received: input_shape={input_shape}"
        )
    sizes: Any = shape[:2]
    if fixed and None in sizes:
        raise InputError(
            "`input_shape` needs a known height and width: this family is fully "
            f"connected over positions. Received: input_shape={input_shape}"
        )
    if multiple and any(s % m for s, m in zip(sizes, multiple)):
        fits = [
            sorted({max(s // m, 1) * m, -(-s // m) * m})
            for s, m in zip(sizes, multiple)
        ]
        choices = " and ".join(
            f"{axis} {' or '.join(map(str, values))}"
            for axis, values in zip(("height", "width"), fits)
        )
        raise InputError(
            f"`input_shape` must be a multiple of {multiple[0]}x{multiple[1]}; the "
            f"nearest that fit: {choices}. Received: input_shape={input_shape}"
        )
    return keras.Input(shape, name="images")


def partitioned_input(
    input_shape: Shape, patch_size: int, block_size: Any, stages: int
) -> tuple[Tensor, list[tuple[int, int]], str]:
    """Return the input of a network with spatial kernels, and each stage's block.

    Args:
        input_shape: Shape `(H, W, C)`, known; without `block_size` multiples of what
            the last stage makes one token of, with it any sizes.
        patch_size: Patch of the first embedding; later ones halve the map.
        block_size: Size `(h, w)` of the first-stage tokens that a kernel covers, or
            `None` for all of them. Blocks that do not cover the image are halved
            exactly, so that the stages' blocks lie in one another.
        stages: Number of stages.

    Returns:
        The input tensor, `(h, w)` per stage, and the embeddings' padding.

    Raises:
        InputError: If sizes do not fit.
    """
    halvings = 2 ** (stages - 1)
    multiple = None if block_size is not None else [patch_size * halvings] * 2
    inputs = image_input(input_shape, fixed=True, multiple=multiple)
    grid = token_grid(input_shape, patch_size)
    block = grid if block_size is None else pair(block_size, "block_size")
    if any(b % halvings and b < g for b, g in zip(block, grid)):
        raise InputError(
            f"`block_size` is halved {stages - 1} times and must be a multiple of "
            f"{halvings} where it does not cover the grid of {grid[0]}x{grid[1]} "
            f"tokens. Received: block_size={tuple(block_size)}"
        )
    blocks = [token_grid(block, 2**stage) for stage in range(stages)]
    return inputs, blocks, "valid" if block_size is None else "same"


def token_grid(input_shape: Sequence[Any], patch_size: int) -> tuple[int, int]:
    """Return `(h, w)` of the tokens of an image, the last ones padded."""
    height, width = (-(-size // patch_size) for size in input_shape[:2])
    return height, width


def check_stages(**per_stage: Sequence) -> None:
    """Check that arguments that name a value per stage agree in length.

    Raises:
        InputError: If they do not.
    """
    lengths = {name: len(values) for name, values in per_stage.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(
            "These arguments name one value per stage and must be equally long: "
            f"{', '.join(lengths)}. Received: "
            + ", ".join(f"{name}={tuple(v)}" for name, v in per_stage.items())
        )
