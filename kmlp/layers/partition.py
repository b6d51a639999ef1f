"""Cutting maps into blocks and putting them together again."""

from keras import ops

from kmlp.errors import InputError
from kmlp.typing import KnownShape, Tensor


def cut(
    maps: Tensor, tiles: tuple[int, int], block: tuple[int, int], batch: int = -1
) -> Tensor:
    """Return the blocks of maps, `(N, rows, columns, h, w·C)`.

    Args:
        maps: Maps `(N, rows·h, columns·w, C)`.
        tiles: Numbers of blocks, `(rows, columns)`.
        block: Size `(h, w)` of a block.
        batch: N where it cannot be told from the sizes.
    """
    (rows, columns), (h, w) = tiles, block
    # (N, H, W, C) -> (N, H/h, h, W/w, w·C) -> (N, H/h, W/w, h, w·C)
    x = ops.reshape(maps, (batch, rows, h, columns, w * maps.shape[-1]))
    return ops.transpose(x, (0, 1, 3, 2, 4))


def put_together(blocks: Tensor, tiles: tuple[int, int], block: KnownShape) -> Tensor:
    """Return maps from their blocks, the inverse of `cut`, as `(N, rows, h, …)`.

    Args:
        blocks: Blocks in any shape, ordered as `cut` orders them.
        tiles: Numbers of blocks, `(rows, columns)`.
        block: Shape `(h, w, C)` of a block.
    """
    (rows, columns), (h, w, channels) = tiles, block
    x = ops.reshape(blocks, (-1, rows, columns, h, w * channels))
    return ops.transpose(x, (0, 1, 3, 2, 4))


class Partition:
    """Non-overlapping blocks of a map, each treated as one sample.

    A map that the blocks do not tile is padded with zeros at the bottom and right,
    and what becomes of the padding is cropped.

    Args:
        input_shape: Shape `(N, H, W, C)`, sizes known.
        block_size: Size `(h, w)` of a block, or `None` for the whole map.
        columns_as_channels: Whether blocks of one full-height column may stand side
            by side as further channels, which moves no data; right where all
            channels are treated alike.
        name: Name of the layer, for its messages.

    Attributes:
        length: Positions of a block.
        tiles: Numbers of blocks, `(rows, columns)`.
        padded: Whether the blocks reach beyond the map.

    Raises:
        InputError: If sizes are unknown.

    Reference: RepMLPNet Sect. 5.3.
    """

    def __init__(
        self,
        input_shape: KnownShape,
        block_size: tuple[int, int] | None,
        *,
        columns_as_channels: bool,
        name: str,
    ) -> None:
        _, height, width, channels = input_shape
        if height is None or width is None:
            raise InputError(
                f"{name}: a layer that is fully connected over positions needs "
                "input_shape with known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        h, w = block_size or (height, width)
        self.block_size: tuple[int, int] = (h, w)
        self.length = h * w
        self.map_shape = (height, width, channels)
        self.tiles = rows, columns = -(-height // h), -(-width // w)
        self._tiled_shape = (rows * h, columns * w, channels)
        self.padded = self._tiled_shape != self.map_shape
        self._columns = columns_as_channels and w == 1 and rows == 1 and width > 1
        block_channels = width * channels if self._columns else channels
        self.block_shape = (None, h, w, block_channels)

    def split(self, inputs: Tensor) -> Tensor:
        """Return blocks `(B, h, w, C)` of maps, row by row within a sample."""
        inputs = self._pad(inputs)
        (rows, columns), (h, w) = self.tiles, self.block_size
        channels = self.map_shape[-1]
        if rows == columns == 1:
            return inputs
        if self._columns or columns == 1:
            return ops.reshape(inputs, (-1, *self.block_shape[1:]))
        blocks = cut(inputs, self.tiles, self.block_size)
        return ops.reshape(blocks, (-1, h, w, channels))

    def valid(self, outputs: Tensor) -> Tensor:
        """Return blocks `(B, h·w, C/S, S)` without what became of the padding.

        Norms that take statistics see the positions of the map alone, which then
        count as one block, `(N, H·W, C/S, S)`.
        """
        if not self.padded:
            return outputs
        height, width, channels = self.map_shape
        sets = outputs.shape[-1]
        x = self._joined(outputs)[:, :height, :width]
        return ops.reshape(x, (-1, height * width, channels // sets, sets))

    def join(self, outputs: Tensor) -> Tensor:
        """Return maps `(N, H, W, C)` from what `valid` left of the blocks."""
        if self.padded:
            return ops.reshape(outputs, (-1, *self.map_shape))
        return self._joined(outputs)

    def _pad(self, inputs):
        if not self.padded:
            return inputs
        missing = [t - m for t, m in zip(self._tiled_shape, self.map_shape)]
        return ops.pad(inputs, [[0, 0], *([0, size] for size in missing)])

    def _joined(self, blocks):
        if not (self._columns or self.tiles[1] == 1):
            block = (*self.block_size, self.map_shape[-1])
            blocks = put_together(blocks, self.tiles, block)
        return ops.reshape(blocks, (-1, *self._tiled_shape))
