"""Why a state does not fit a model, in one short paragraph with the remedy."""

from kmlp.weights.matching import CLASSIFIER
from kmlp.weights.names import classifier_of
from kmlp.weights.recognition import as_options, recognise

# How many of many names are listed, and how many where the state is another thing.
_NAMED, _FEW = 5, 2


def misfit(model, state, found, received):
    """The message for a state that does not fit.

    Args:
        model: of one of the families.
        state: `{published name: array}`.
        found: the `kmlp.weights.matching.Match` of both.
        received: what the user passed.

    Returns:
        A text that ends in "Received: …".
    """
    reason = _classifier_alone(model, found) or _whole(model, state, found)
    return f"{reason}. Received: {received}"


def _classifier_alone(model, found):
    """The reason where only the classifier is amiss, else `None`."""
    missing = {v.path for v in found.missing.values()}
    misshapen = {v.path: shape for v, shape in found.misshapen.values()}
    paths = missing | misshapen.keys()
    classifier = classifier_of(model)
    if found.surplus or not all(path.startswith(classifier) for path in paths):
        return None
    if CLASSIFIER not in classifier:
        return (
            f"The state was made for other classes than {model.name!r}, which has "
            f"{model.num_classes}: pass new_head=True to keep what the model predicts "
            "of each class and load all else, or build the model for the state's"
        )
    if len(missing) == 2:
        return (
            "The state has no classifier, as after self-supervised training: pass "
            f"new_head=True to keep that of {model.name!r}, or build the model with "
            "num_classes=0"
        )
    classes = misshapen.get(f"{CLASSIFIER}bias", ())
    width = model.get_layer("head").dense.kernel.shape[0]
    if len(classes) != 1 or misshapen.get(f"{CLASSIFIER}kernel") != (*classes, width):
        return None
    classes = classes[0]
    return (
        f"The state's classifier has {classes} classes, that of {model.name!r} "
        f"{model.num_classes}: pass new_head=True to keep the model's own and load all "
        f"else, or build the model with num_classes={classes}"
    )


def _whole(model, state, found):
    sides = (
        (
            "missing from the state",
            [f"{name} (our {v.path})" for name, v in found.missing.items()],
        ),
        ("surplus in the state", found.surplus),
        (
            "of another shape",
            [
                f"{name} {shape} for {v.path} {tuple(v.shape)}"
                for name, (v, shape) in found.misshapen.items()
            ],
        ),
    )
    seeming = _seeming(model, state, found)
    count = _FEW if seeming else _NAMED
    listed = ". ".join(
        f"{title.capitalize()} ({len(rows)}): {_some(rows, count)}"
        for title, rows in sides
        if rows
    )
    return f"The state does not fit {model.name!r}{seeming}. {listed}"


def _some(rows, count):
    rows = sorted(rows)
    more = f" … and {len(rows) - count} more" if len(rows) > count else ""
    return "; ".join(rows[:count]) + more


def _seeming(model, state, found):
    """What the state seems to be and how to build that, where it is another thing."""
    try:
        seems = recognise(state)
    except ValueError:
        if 2 * len(found.fitting) > len(state):
            return ""  # it lacks what a network is told by
        return ": its names are of no family that kmlp knows"
    if seems.family is not type(model):
        return f": it seems to be {seems}"
    config = {**model.get_config(), "input_shape": _trained_size(model)}
    others = {
        name: value
        for name, value in seems.structure.items()
        if _plain(config[name]) != _plain(value)
    }
    has_classifier = model.include_top and model.num_classes
    if found.fresh or not has_classifier or "include_top" in others:
        others.pop("num_classes", None)  # the classifier is not what is amiss
    if not others:
        return ""
    resized = ", and bring that to another size with kmlp.resize()"
    return (
        f": it seems to be {seems}; build the model with {as_options(others)}"
        f"{resized if 'input_shape' in others else ''}"
    )


def _trained_size(model):
    """The images whose token grid the spatial kernels cover."""
    config = model.get_config()
    if config.get("block_size") is None:
        return config["input_shape"]
    sides = [config["patch_size"] * size for size in config["block_size"]]
    return (*sides, config["input_shape"][2])


def _plain(value):
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value
