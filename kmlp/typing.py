"""Names of types that signatures across the library share."""

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

# A backend's tensor, symbolic or not, or an array that Keras turns into one.
Tensor: TypeAlias = Any
# The shape of a tensor; `None` where a size is unknown.
Shape: TypeAlias = Sequence[int | None]
# The shape of a tensor whose sizes are known, except perhaps the batch's.
KnownShape: TypeAlias = Sequence[int]
# A number for each stage, axis or branch.
Sizes: TypeAlias = Sequence[int]
# A name or a function, and a name or a policy, as Keras takes them.
Activation: TypeAlias = Any
DType: TypeAlias = Any
# The dictionary that `get_config` returns and JSON holds.
Config: TypeAlias = dict[str, Any]
PathLike: TypeAlias = str | os.PathLike[str]
