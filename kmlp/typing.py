"""Names of types that signatures across the library share."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

# A backend's tensor, symbolic or not, or an array that Keras turns into one.
Tensor: TypeAlias = Any
# Of a tensor; `None` where a size is unknown.
Shape: TypeAlias = Sequence[int | None]
# Of a tensor whose sizes are known, but perhaps for the batch.
KnownShape: TypeAlias = Sequence[int]
# A number for each stage, axis or branch.
Sizes: TypeAlias = Sequence[int]
# A name or a function, and a name or a policy, as Keras takes them.
Activation: TypeAlias = Any
DType: TypeAlias = Any
# What `get_config` returns and JSON holds.
Config: TypeAlias = dict[str, Any]
PathLike: TypeAlias = str | os.PathLike[str]
