"""Check the members of an origin before anything relies on them.

Whoever wrote it, what is read of an artifact has passed here: each member that is known
has its kind, or is `None` or missing; members that are not known may be anything.
"""

from collections.abc import Callable
from typing import Any

from kmlp.errors import InputError
from kmlp.typing import PathLike

# Returns what is wrong as `(where, what it must be)`, `None` if nothing is.
Kind = Callable[[Any], tuple[str, str] | None]

# No picture that a network takes has a longer side.
LARGEST_SIDE = 4096
_MANY = 10**15  # what is counted, and converted to a float


def _kind(words: str, fits: Callable[[Any], bool]) -> Kind:
    return lambda value: None if fits(value) else ("", words)


def _whole(least, most):
    words = f"an integer of {least:,} to {most:,}"
    return _kind(words, lambda value: type(value) is int and least <= value <= most)


def _number(words, fits=lambda value: True):
    def is_one(value):
        # Infinity and what is no number are not below.
        known = type(value) in (int, float) and abs(value) < _MANY
        return known and fits(value)

    return _kind(words, is_one)


def _choice(*words):
    return _kind(" or ".join(map(repr, words)), lambda value: value in list(words))


def _several(kind, words, count=None):
    def find(value):
        if not isinstance(value, list) or count not in (None, len(value)):
            return "", words
        for index, part in enumerate(value):
            if wrong := kind(part):
                return f"[{index}]{wrong[0]}", wrong[1]
        return None

    return find


def _members(**kinds):
    def find(value):
        if not isinstance(value, dict):
            return "", "a dictionary"
        for name, kind in kinds.items():
            if value.get(name) is not None and (wrong := kind(value[name])):
                return f".{name}{wrong[0]}", wrong[1]
        return None

    return find


def _prepared(value):
    """Check `preprocessing`, of which a detector or segmenter needs some members."""
    if wrong := _PREPROCESSING(value):
        return wrong
    needed = ("mean", "std", "canvas") if value.get("task") else ()
    missing = [name for name in needed if value.get(name) is None]
    return (f".{missing[0]}", f"there for {value['task']}") if missing else None


def _scored(value):
    """Check `accuracies`, some of which are made into text."""
    scores = ("top1", "images", "AP", "mask_AP", "mIoU", "accuracy")
    if not isinstance(value, dict):
        return "", "a dictionary"
    named = [n for n in value if n in scores or n.endswith("_top1")]
    return _members(**dict.fromkeys(named, _number("a number")))(value)


def _written(value):
    """Check what stands at the top, under `recipe` or under `data`."""
    parts = _members(recipe=_PREPROCESSING, data=_PREPROCESSING)
    return _PREPROCESSING(value) or parts(value)


_TEXT = _kind("text", lambda value: isinstance(value, str))
_NAMES = _several(_TEXT, "a list of text")
_COUNT = _whole(0, _MANY)
_SIDE = _whole(1, LARGEST_SIDE)
_SIDES = _several(_SIDE, "two sides", 2)
_PREPROCESSING = _members(
    task=_choice("detection", "segmentation"),
    mean=_several(_number("a number"), "three numbers", 3),
    std=_several(
        _number("a number above 0", lambda value: value > 0), "three numbers", 3
    ),
    image_size=_SIDE,
    test_crop=_number("a number in (0, 1]", lambda value: 0 < value <= 1),
    test_interpolation=_choice("bilinear", "bicubic"),
    exif=_choice("ignore", "apply"),
    canvas=_SIDES,
    short_side=_SIDE,
    long_side=_SIDE,
    resize_to=_SIDES,
    mode=_choice("whole", "slide"),
    window=_SIDES,
    stride=_SIDES,
    category_ids=_several(_COUNT, "a list of numbers"),
    class_names=_NAMES,
)
ORIGIN = _members(
    format=_kind("1: a later version of kmlp wrote it", lambda value: value == 1),
    architecture=_TEXT,
    form=_TEXT,
    configuration=_members(),
    weights_sha256=_TEXT,
    artifact_sha256=_TEXT,
    parameters=_members(trainable=_COUNT, non_trainable=_COUNT),
    multiply_adds=_COUNT,
    source=_members(),
    preprocessing=_prepared,
    class_names=_NAMES,
    versions=_members(),
    created=_TEXT,
    artifact=_members(),
    equality=_members(),
    dense=_members(
        layers=_kind(
            "text by layer",
            lambda value: (
                isinstance(value, dict)
                and all(isinstance(v, str) for v in value.values())
            ),
        ),
        **dict.fromkeys(
            ("multiply_adds", "parameters", "bytes"),
            _several(_COUNT, "two numbers", 2),
        ),
    ),
    audit=_members(operations=_members()),
    accuracies=_scored,
    initial_weights=_members(name=_TEXT, sha256=_TEXT),
    frozen=_NAMES,
)
# What a run writes of the images beside its weights.
WRITTEN: Kind = _written


def check(values: Any, kind: Kind, path: PathLike) -> None:
    """Refuse values of which a member is not what it must be.

    Args:
        values: Dictionary as JSON gave it.
        kind: `ORIGIN`, or `WRITTEN` of `recipe.json` and `report.json`.
        path: Path that messages name.

    Raises:
        InputError: If one is not; the message names the member.
    """
    if wrong := kind(values):
        where, what = wrong
        name = where.removeprefix(".") or "origin"
        found = _found(values, where)
        raise InputError(
            f"What is written down with this artifact is wrong: its {name} must be "
            f"{what}; export it again, or mend it. "
            f"Received: {found} in {str(path)!r}"
        )


def _found(values, where):
    """Return the value at a place, shortened."""
    for part in where.replace("[", ".").replace("]", "").split(".")[1:]:
        values = values[int(part)] if isinstance(values, list) else values.get(part)
    return repr(values)[:100]
