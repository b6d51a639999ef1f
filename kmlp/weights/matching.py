"""What of a published state fits a model, and what does not."""

import dataclasses
import re

import numpy as np

from kmlp.errors import InputError
from kmlp.weights.names.dense_schemes import classifier_of, depths_of, schemes_of
from kmlp.weights.names.renamings import SCHEMES
from kmlp.weights.names.scheme import Scheme, converted

# What PyTorch counts, and what Swin and Focal transformers compute when they are made:
# nothing of it was learned. These, and only these, may be left over.
_DERIVED = re.compile(
    r"num_batches_tracked|attn_mask|relative_position_index\w*|valid_ind_\w+"
)
# Networks that only their paper has.
_NEVER_PUBLISHED = ("MSMLPHybrid",)
HEAD, CLASSIFIER = "head/", "head/dense/"


@dataclasses.dataclass(frozen=True)
class Match:
    """A model's variables beside a state's arrays, by published names.

    Attributes:
        scheme: the `kmlp.weights.names.scheme.Scheme`.
        fitting: `{name: (variable, array in our layout)}`.
        missing: `{name: variable}` without an array.
        surplus: names of arrays without a variable.
        misshapen: `{name: (variable, the array's shape)}`.
        ignored: names of derived buffers.
        left_out: names of the state's head that the model has no use for.
        fresh: `{name: variable}` of a new classifier, which keep their values.
    """

    scheme: Scheme
    fitting: dict
    missing: dict
    surplus: list
    misshapen: dict
    ignored: list
    left_out: list
    fresh: dict

    @property
    def is_complete(self):
        """Whether every array and every variable is used once."""
        return not (self.missing or self.surplus or self.misshapen)

    def assign(self):
        """Gives the fitting arrays to their variables."""
        for variable, array in self.fitting.values():
            variable.assign(array)


def derived(name):
    """Whether a name is that of a buffer that was computed, not learned."""
    return bool(_DERIVED.fullmatch(name.rsplit(".", 1)[-1]))


def match(model, state, *, new_head=False):
    """Compares a model with a state, by the naming scheme that knows most of it.

    Args:
        model: of one of the families.
        state: `{published name: array}`.
        new_head: whether the classifier keeps its values, whatever the state has.

    Returns:
        A `Match`; nothing is assigned.

    Raises:
        InputError: a model of no family, or with parts that were never published.
    """
    schemes = schemes_of(model)
    if not schemes and type(model).__name__ in _NEVER_PUBLISHED:
        raise InputError(
            f"No weights of {type(model).__name__} were ever published: there are no "
            "names to load by. Files of your own load with `model.load_weights` or "
            f"`kmlp.create_model(weights=…)`. Received: {model.name!r}"
        )
    if not schemes:
        families = ", ".join(family.__name__ for family in SCHEMES)
        raise InputError(
            f"load_published() knows the published names of {families}, and of "
            "RetinaNet and MaskRCNN over them. "
            f"Received: {type(model).__name__}"
        )
    variables = {variable.path: variable for variable in model.weights}
    ignored = sorted(name for name in state if derived(name))
    state = {name: array for name, array in state.items() if not derived(name)}
    depths, classifier = depths_of(model), classifier_of(model)
    tables = [(s, s.theirs(variables, depths)) for s in schemes]
    # Schemes that know other variants of the family have nothing to say here.
    whole = [table for table in tables if variables.keys() <= table[1].keys()]
    scheme, named = max(
        whole or tables,
        key=lambda table: sum(name in state for name, _ in table[1].values()),
    )
    for path in variables:
        if path not in named:
            raise InputError(
                f"{model.name!r} has a structure that was never published: there is "
                f"no published name for {path}. Received: {model!r}"
            )
    fitting, missing, misshapen, fresh = {}, {}, {}, {}
    for path, (name, convert) in named.items():
        variable = variables[path]
        if new_head and path.startswith(classifier):
            fresh[name] = variable
        elif name not in state:
            missing[name] = variable
        elif (array := converted(state[name], variable, convert)) is None:
            misshapen[name] = variable, np.shape(state[name])
        else:
            fitting[name] = variable, array
    unused = sorted(state.keys() - fitting.keys() - misshapen.keys())
    paths = scheme.ours(unused, depths)
    spare = (HEAD, *classifier) if new_head else (HEAD,)
    heads = [name for name in unused if paths.get(name, "").startswith(spare)]
    return Match(
        scheme=scheme,
        fitting=fitting,
        missing=missing,
        surplus=[name for name in unused if name not in heads],
        misshapen=misshapen,
        ignored=ignored,
        left_out=heads,
        fresh=fresh,
    )
