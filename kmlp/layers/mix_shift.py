"""MS-MLP's mixing and shifting of channel groups."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kmlp import algebra
from kmlp.errors import InputError, check_choice
from kmlp.layers.conv_norm import conv2d, conv_products
from kmlp.layers.convolution_free import (
    POSITIONS,
    chosen_form,
    positions_of,
    with_form,
)
from kmlp.layers.layer import Layer, assign, copy, host
from kmlp.layers.perceptrons import SetSharingLinear
from kmlp.typing import KnownShape, Tensor

ORDERS = ("shift_mix", "mix_shift")
MIXINGS = ("depthwise", "full")


def roll(inputs: Tensor, shift: int, axis: int) -> Tensor:
    """Shift a map circularly by a distance, as slices where the size is known.

    A slice and a concatenation export as builtin operations everywhere; the roll
    operation does not.
    """
    size = inputs.shape[axis]
    if size is None:
        return ops.roll(inputs, shift, axis=axis)
    shift %= size
    if not shift:
        return inputs
    head, tail = ops.split(inputs, [size - shift], axis=axis)
    return ops.concatenate([tail, head], axis=axis)


@keras.saving.register_keras_serializable("kmlp")
class MixShift(Layer):
    """Mixes regions of growing size, each shifted further, along both axes.

    The channels are split into groups. Along a horizontal and a vertical path,
    each with its own convolutions, group `i` is rolled circularly by `shifts[i]`
    and mixed by a convolution of size `regions[i]`; the paths are added. At
    inference the two convolutions of an unshifted group are one, and the two biases
    of every group are one.

    Args:
        regions: Kernel size per group.
        shifts: Distance per group; negative to the left and upwards.
        order: Order of shift and mixing, `"shift_mix"` (published weights) or
            `"mix_shift"` (the paper's words).
        mixing: Kind of mixing, `"depthwise"`, or `"full"`: convolutions that mix the
            channels of a group, too.
        folded: Whether this is the inference form.
        kernel_initializer: Initializer of the convolutions.
        form: Form of the convolutions at inference, as `kmlp.merge(model, dense=…)`
            chose it: `"position FC"` is one FC per channel for shifts, mixing and both
            paths; `None`: convolutions.

    Shapes: `(N, H, W, C)` in and out. The first groups have `ceil(C / groups)`
    channels, the last one the rest.

    Raises:
        InputError: If regions and shifts differ in number, channels are too few, or an
            order or mixing is unknown.

    Reference: MS-MLP (Zheng et al., 2022), Sect. 3.2, Eqs. 1-4; Table 13 for full
    convolutions.
    """

    def __init__(
        self,
        regions=(1, 1, 3, 5, 7),
        shifts=(-2, -1, 0, 1, 2),
        *,
        order="shift_mix",
        mixing="depthwise",
        folded=False,
        kernel_initializer="glorot_uniform",
        form=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(regions) != len(shifts):
            raise InputError(
                "`regions` and `shifts` name one value per channel group each. "
                f"Received: regions={tuple(regions)}, shifts={tuple(shifts)}"
            )
        check_choice(ORDERS, order=order)
        check_choice(MIXINGS, mixing=mixing)

    @property
    def groups(self) -> int:
        """Return the number of channel groups."""
        return len(self.regions)

    def _conv(self, path, index):
        return conv2d(
            self.sizes[index],
            self.regions[index],
            self.sizes[index],
            depthwise=self.mixing == "depthwise",
            form=self.form,
            use_bias=not self.folded,
            kernel_initializer=self.kernel_initializer,
            name=f"{path}_{index}",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: KnownShape) -> None:
        *size, channels = input_shape
        width = -(-channels // self.groups)
        self.sizes = [width] * (self.groups - 1)
        self.sizes.append(channels - sum(self.sizes))
        if self.sizes[-1] < 1:
            raise InputError(
                f"{self.name}: {channels} channels do not split into {self.groups} "
                f"groups of {width} and a rest. Received: input_shape="
                f"{tuple(input_shape)}"
            )
        self.mix = self._position_fc(input_shape)
        groups = 0 if self.mix is not None else self.groups
        self.horizontal = [self._conv("horizontal", i) for i in range(groups)]
        self.vertical: list[Any] = [
            None if self.folded and not shift else self._conv("vertical", i)
            for i, shift in enumerate(self.shifts[:groups])
        ]
        for path in (self.horizontal, self.vertical):
            for conv, channels in zip(path, self.sizes):
                if conv is not None:
                    conv.build((*size, channels))
        self.bias = None
        if self.folded:
            # Behind the sum: TensorFlow would fuse a convolution, its bias and the
            # sum into a node that it lacks for depthwise convolutions, and then
            # give up optimising the whole graph.
            self.bias = self.add_weight(
                name="bias", shape=(sum(self.sizes),), initializer="zeros"
            )

    def _position_fc(self, input_shape):
        if self.form != POSITIONS:
            return None
        mix = SetSharingLinear(
            sum(self.sizes),
            use_bias=False,
            kernel_initializer="zeros",
            name="mix",
            dtype=self.dtype_policy,
        )
        mix.build(input_shape)
        return mix

    def call(self, inputs: Tensor) -> Tensor:
        if self.mix is not None:
            return self.mix(inputs) + self.bias
        edges = [sum(self.sizes[: i + 1]) for i in range(self.groups - 1)]
        groups = ops.split(inputs, edges, axis=-1)
        if self.folded:
            outputs = [self._both_paths(i, group) for i, group in enumerate(groups)]
            return ops.concatenate(outputs, axis=-1) + self.bias
        # Concatenated before they are added, for the reason given at the bias.
        horizontal, vertical = (
            ops.concatenate(
                [
                    self._shift_and_mix(c, groups[i], i, axis)
                    for i, c in enumerate(path)
                ],
                axis=-1,
            )
            for path, axis in ((self.horizontal, 2), (self.vertical, 1))
        )
        return horizontal + vertical

    def _both_paths(self, index, group):
        outputs = self._shift_and_mix(self.horizontal[index], group, index, axis=2)
        if self.vertical[index] is None:
            return outputs
        vertical = self._shift_and_mix(self.vertical[index], group, index, axis=1)
        return outputs + vertical

    def _shift_and_mix(self, conv, group, index, axis):
        if self.order == "shift_mix":
            return conv(roll(group, self.shifts[index], axis))
        return roll(conv(group), self.shifts[index], axis)

    def multiply_adds(self, input_shape: KnownShape) -> int:
        if self.mix is not None:
            return self.mix.multiply_adds(input_shape)
        shapes = [(*input_shape[:-1], channels) for channels in self.sizes]
        pairs = [*zip(self.horizontal, shapes), *zip(self.vertical, shapes)]
        return sum(conv_products(conv, shape) for conv, shape in pairs if conv)

    def merged(self) -> Layer:
        """Return unshifted groups as one convolution, and one bias per group."""
        if self.folded:
            return copy(self)
        twin = copy(self, folded=True)
        biases = []
        for index, shift in enumerate(self.shifts):
            horizontal, vertical = self.horizontal[index], self.vertical[index]
            kernel = host(horizontal.kernel)
            if shift:
                assign(twin.vertical[index], kernel=host(vertical.kernel))
            else:
                kernel = kernel + host(vertical.kernel)
            biases.append(host(horizontal.bias) + host(vertical.bias))
            assign(twin.horizontal[index], kernel=kernel)
        assign(twin, bias=np.concatenate(biases))
        return twin

    def convolution_free(self, dense: str, shape: Any) -> Layer | None:
        """Return the layer as one FC, or with its convolutions as shifts, once merged.

        Args:
            dense, shape: As of `kmlp.layers.convolution_free.convolution_free`.
        """
        if self.form is not None or not self.folded:
            return None
        depthwise, positions = self.mixing == "depthwise", None
        taps = 0
        for conv in filter(None, (*self.horizontal, *self.vertical)):
            taps += conv.kernel.shape[2] * math.prod(conv.kernel_size)
        if depthwise and (positions := positions_of(self, shape)) is not None:
            positions *= sum(self.sizes)
        form = chosen_form(dense, depthwise, taps, positions)
        if form != POSITIONS:
            return with_form(self, form)
        twin = copy(self, form=form)
        assign(twin, bias=host(self.bias))
        assign(twin.mix, kernel=self._matrices(shape[1:3]))
        return twin

    def _matrices(self, grid):
        """Return both paths of every group, shifts included, as `(C, h*w, h*w)`."""
        found = []
        for index, shift in enumerate(self.shifts):
            total = 0
            for axis, path in ((2, self.horizontal), (1, self.vertical)):
                if path[index] is None:
                    continue
                kernel = algebra.conv_to_fc(host(path[index].kernel)[..., 0], grid)
                kernel = kernel.reshape(-1, *grid, *grid)
                # Reading a rolled map is a roll of the inputs' axes the other way.
                if self.order == "shift_mix":
                    kernel = np.roll(kernel, -shift, axis + 2)
                else:
                    kernel = np.roll(kernel, shift, axis)
                total = total + kernel
            found.append(total.reshape(-1, *[math.prod(grid)] * 2))
        return np.concatenate(found)
