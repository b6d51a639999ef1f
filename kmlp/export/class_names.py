"""Names of classes, checked."""

from kmlp.errors import InputError


def checked_names(names, classes):
    """Names as a tuple, once they are found to be one for each class.

    Raises:
        InputError: not one distinct name of one line for each class.
    """
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be a list of strings. "
            f"Received: class_names={_shortened(names)}"
        )
    names = tuple(names)
    if len(names) != classes:
        raise InputError(
            f"`class_names` must name each of the model's {classes} classes. "
            f"Received: {len(names)} class names"
        )
    if wrong := [n for n in names if not n.strip() or n.splitlines() != [n]]:
        raise InputError(
            "`class_names` must be of one line each and not empty. "
            f"Received: {_shortened(wrong)}"
        )
    if len(set(names)) < classes:
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(
            f"`class_names` must differ. Received more than once: {_shortened(twice)}"
        )
    return names


def _shortened(names):
    names = names if isinstance(names, str) else list(names)
    return repr(names[:3])[:200] + (f" and {len(names) - 3} more" * (len(names) > 3))
