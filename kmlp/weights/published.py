"""Loading published states, strictly."""

import os

import numpy as np

from kmlp.weights.names import SCHEMES, converted, published_names
from kmlp.weights.readers import read_state

# PyTorch's counter of batches, which no inference needs.
_IGNORED = ("num_batches_tracked",)


def load_published(model, source):
    """Fills a model with a published state; every array and variable exactly once.

    Args:
        model: `RepMLPNet` (train form), `ResMLP`, `ConvMLP`, `MSMLP` or `SMLPNet`
            with the published structure.
        source: path of a `.npz`, `.safetensors` or PyTorch file, or a mapping of
            published names to arrays. PyTorch files are read without executing
            what they pickle. timm's names of ResMLP are known too.

    Returns:
        The model.

    Raises:
        ValueError: a missing, surplus or misshapen array (the message lists the
            names on both sides; no variable has been changed then), or a model
            that is none of the families.
    """
    if type(model) not in SCHEMES:
        families = ", ".join(family.__name__ for family in SCHEMES)
        raise ValueError(
            f"load_published() knows the published names of {families}. "
            f"Received: {type(model).__name__}"
        )
    is_file = isinstance(source, (str, os.PathLike))
    state = read_state(source) if is_file else dict(source)
    state = {k: v for k, v in state.items() if k.rsplit(".", 1)[-1] not in _IGNORED}
    schemes = [published_names(model, scheme) for scheme in SCHEMES[type(model)]]
    names = max(schemes, key=lambda names: len(names.keys() & state.keys()))

    arrays, misshapen = {}, []
    for name in names.keys() & state.keys():
        variable, convert = names[name]
        arrays[name] = converted(state[name], variable, convert)
        if arrays[name] is None:
            misshapen.append(
                f"{name} {np.shape(state[name])} does not fit "
                f"{variable.path} {tuple(variable.shape)}"
            )
    missing = [
        f"{name} (our {names[name][0].path})" for name in sorted(names.keys() - state)
    ]
    problems = [
        f"{title} ({len(rows)}): {'; '.join(rows)}"
        for title, rows in (
            ("missing from the state", missing),
            ("surplus in the state", sorted(state.keys() - names)),
            ("of another shape", sorted(misshapen)),
        )
        if rows
    ]
    if problems:
        raise ValueError(
            f"The state does not fit {model.name!r}; build the model with the "
            f"checkpoint's arguments. {'. '.join(problems)}. Received: "
            f"{source if is_file else f'{len(state)} arrays'}"
        )
    for name, array in arrays.items():
        names[name][0].assign(array)
    return model
