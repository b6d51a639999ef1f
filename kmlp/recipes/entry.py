"""A recipe beside what differs from it for some architectures."""

import dataclasses
import fnmatch

from kmlp.recipes.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Entry:
    """A recipe, and what differs for some architectures.

    Attributes:
        recipe: for an architecture that no pattern fits.
        data: that it is for, as `--data` takes it; `""`: any.
        by_arch: `{shell pattern: {field: value}}`; of several that fit, the later
            ones count.
    """

    recipe: Recipe
    data: str = ""
    by_arch: dict = dataclasses.field(default_factory=dict)

    def of(self, arch):
        """The recipe of an architecture."""
        changes = {}
        for pattern, fields in self.by_arch.items():
            if fnmatch.fnmatchcase(arch, pattern):
                changes |= fields
        return dataclasses.replace(self.recipe, **changes)
