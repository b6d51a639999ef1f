"""Published weights into a model of ours."""

from kmlp import models
from kmlp.errors import InputError
from kmlp.models.registry import variant
from kmlp.preprocessing import Preprocessing
from kmlp.pretrained.found import sha256_of
from kmlp.weights import load_published, read_state, recognise
from kmlp.weights.catalogue.class_labels import class_names


def load(found, num_classes, input_shape, overrides):
    """A model with published weights, at the size that they were trained at.

    Args:
        found: `kmlp.pretrained.found.Found`.
        num_classes: of the model; `None`: the weights' own.
        input_shape: counts where the weights fit any size, or `block_size` is given.
        overrides: further arguments of the family's class.

    Returns:
        `(model, classes of the weights' own head)`, 0 where they have none.

    Raises:
        InputError: a file that cannot be read or does not fit.
    """
    entry = found.entry
    state = promised(read_state(found.path), entry)
    seems = recognise(state)
    _check_name(seems, found)
    own_classes = seems.arguments["num_classes"]
    changes = dict(overrides)
    if "input_shape" not in seems.arguments or "block_size" in overrides:
        changes["input_shape"] = input_shape or _own_shape(found)
    changes["num_classes"] = own_classes if num_classes is None else num_classes
    model = _built(seems, found.architecture, changes)
    new_head = changes["num_classes"] not in (0, own_classes)
    load_published(model, state, new_head=new_head)
    model.preprocessing = preprocessing(entry, model, own_classes)
    model.weights_source = source(found)
    return model, own_classes


def promised(state, entry):
    """A state without the head where its authors offer none.

    What is in its place then, as in DINO's checkpoints, is of the training alone.
    """
    if entry is None or entry.num_classes:
        return state
    return {k: v for k, v in state.items() if not k.startswith("head.")}


def _check_name(seems, found):
    """Weights of another architecture are told before a model is built."""
    name = found.architecture
    if name is None:
        return
    family, _ = variant(name)
    if seems.family is not family or seems.architecture not in (None, name):
        raise InputError(
            f"These weights seem to be of {seems}, not of {name}: leave the name out "
            f"or correct it. Received: {str(found.path)!r}"
        )


def _own_shape(found):
    """The size that weights without spatial kernels were trained at, if known."""
    if found.entry is not None:
        return (found.entry.image_size, found.entry.image_size, 3)
    return None


def _built(seems, name, changes):
    """The model with fresh weights; a structure without a name under one of its own."""
    changes = {k: v for k, v in changes.items() if v is not None}
    if seems.architecture is None and name is not None:
        return models.create_model(name, **{**seems.arguments, **changes})
    return seems.build(**changes)


def preprocessing(entry, model, own_classes):
    """What the catalogue says of the images, with names where the head is theirs."""
    if entry is None:
        return None
    kept = model.include_top and model.num_classes == own_classes == entry.num_classes
    known = Preprocessing(
        mean=entry.mean,
        std=entry.std,
        image_size=entry.image_size,
        test_crop=entry.test_crop,
        test_interpolation=entry.test_interpolation,
        class_names=class_names(entry.labels) if kept else None,
        found=(entry.name,),
    )
    return known.for_size(*model.inputs[0].shape[1:3])


def source(found):
    """Where the weights come from, as an origin keeps it."""
    known = {"file": found.path.name, "sha256": sha256_of(found.path)}
    if found.entry is not None:
        names = ("name", "address", "licence", "top1", "metric")
        known = {**{n: getattr(found.entry, n) for n in names}, **known}
    return known
