"""Cutting maps into blocks and putting them together again."""

from keras import ops


class Partition:
    """Non-overlapping blocks of a map, each treated as one sample.

    Args:
        input_shape: `(N, H, W, C)`, sizes known.
        block_size: `(h, w)`, or `None` for the whole map.
        columns_as_channels: blocks of one full-height column may be stood side
            by side as further channels, which moves no data; allowed where all
            channels are treated alike.
        name: of the layer, for its messages.

    Raises:
        ValueError: unknown sizes, or blocks that do not divide the map.

    Reference: RepMLPNet Sect. 5.3.
    """

    def __init__(self, input_shape, block_size, *, columns_as_channels, name):
        _, height, width, channels = input_shape
        if height is None or width is None:
            raise ValueError(
                f"{name}: a layer that is fully connected over positions needs "
                "input_shape with known height and width. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        self.block_size = h, w = tuple(block_size or (height, width))
        if height % h or width % w:
            raise ValueError(
                f"{name}: block_size must divide the map ({height}, {width}). "
                f"Received: block_size={self.block_size}"
            )
        self.length = h * w
        self.map_shape = (height, width, channels)
        self._columns = columns_as_channels and w == 1 and h == height and width > 1
        block_channels = width * channels if self._columns else channels
        self.block_shape = (None, h, w, block_channels)

    def split(self, inputs):
        """`(N, H, W, C)` to `(B, h, w, C)`, blocks row by row within a sample."""
        height, width, channels = self.map_shape
        h, w = self.block_size
        if (height, width) == (h, w):
            return inputs
        if self._columns or w == width:
            return ops.reshape(inputs, (-1, *self.block_shape[1:]))
        # (N, H, W, C) -> (N, H/h, h, W/w, w, C) -> (N·H/h·W/w, h, w, C)
        x = ops.reshape(inputs, (-1, height // h, h, width // w, w * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, h, w, channels))

    def join(self, blocks):
        """Blocks, flattened in any way, to maps `(N, H, W, C)`."""
        height, width, channels = self.map_shape
        h, w = self.block_size
        if self._columns or w == width:
            return ops.reshape(blocks, (-1, height, width, channels))
        x = ops.reshape(blocks, (-1, height // h, width // w, h, w * channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        return ops.reshape(x, (-1, height, width, channels))
