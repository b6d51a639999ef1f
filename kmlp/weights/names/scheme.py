"""Naming schemes: tables of our layers beside published modules, read both ways."""

import dataclasses
import functools
import re
from collections.abc import Callable

from kmlp.weights.names.layouts import KINDS

_FIELD = re.compile(r"\{(\w)\}")


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How somebody names the parameters of a family.

    Attributes:
        name: whose names they are, as messages say it.
        rows: function that gives the table; its argument is the model's blocks per
            stage, or `None` where they are not known.
    """

    name: str
    rows: Callable

    def theirs(self, paths, depths=None):
        """Published names of our variables.

        Args:
            paths: of variables, such as `"stem/dense/kernel"`.
            depths: blocks per stage; `None`: our paths count as `rows(None)` does.

        Returns:
            `{path: (published name, function (array, shape) -> array)}`; paths that
            the scheme does not name are left out.
        """
        rows = [(_pattern(o), t, KINDS[kind]) for o, t, kind in self.rows(depths)]
        found = {}
        for path in paths:
            layer, _, leaf = path.rpartition("/")
            for pattern, module, parameters in rows:
                match = pattern.fullmatch(layer)
                if match and leaf in parameters:
                    parameter, convert = parameters[leaf]
                    module = module.format(**match.groupdict())
                    found[path] = f"{module}.{parameter}".rstrip("."), convert
                    break
        return found

    def ours(self, names, depths=None):
        """Our variables' paths of published names; the inverse of `theirs`.

        Returns:
            `{published name: path}`; names that the scheme does not have are left out.
        """
        rows = [
            (_pattern(module), ours, {theirs: leaf for leaf, (theirs, _) in kind})
            for ours, module, kind in (
                (o, t, KINDS[kind].items()) for o, t, kind in self.rows(depths)
            )
        ]
        found = {}
        for name in names:
            ends = [(name, "")]
            if "." in name:
                ends.append(tuple(name.rsplit(".", 1)))
            for pattern, ours, leaves in rows:
                for module, parameter in ends:
                    if parameter not in leaves:
                        continue
                    if match := pattern.fullmatch(module):
                        layer = ours.format(**match.groupdict())
                        found[name] = f"{layer}/{leaves[parameter]}"
        return found


@functools.cache
def _pattern(template):
    """A regular expression for a template; a field that returns is one number."""
    seen = set()

    def group(match):
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return rf"(?P<{name}>\d+)"

    escaped = re.sub(r"[.]", r"\\.", template)
    return re.compile(_FIELD.sub(group, escaped))
