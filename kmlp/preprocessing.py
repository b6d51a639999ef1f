"""How images become a model's input: what travels with its weights."""

import dataclasses
import json
from pathlib import Path

from kmlp.artifacts import origin
from kmlp.artifacts.locating import locate
from kmlp.errors import InputError, KmlpError

# The later overrides the former: a report has what training really used.
FILES = ("recipe.json", "report.json")
# What stands where a run left it open, as training has it.
DEFAULTS = {"test_crop": 1.0, "test_interpolation": "bilinear"}
NEEDED = ("image_size", "mean", "std", "test_crop", "test_interpolation")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become a model's input; `None` where nobody knows.

    The shorter side is resized to `image_size / test_crop`, and the centre taken.

    Attributes:
        mean, std: per channel, of images in 0…1.
        image_size: height and width of the input.
        test_crop: share of the resized image that the centre crop shows.
        test_interpolation: of that resizing.
        class_names: in the order of the outputs.
        found: the files that said so.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    test_crop: float | None = None
    test_interpolation: str | None = None
    class_names: tuple[str, ...] | None = None
    found: tuple[str, ...] = ()

    @property
    def complete(self):
        """Whether nothing is left open that an image needs."""
        return None not in [getattr(self, name) for name in NEEDED]

    def completed(self, given):
        """With values that override it, and defaults where neither knows.

        Nothing stands for the size, mean and deviation.

        Args:
            given: `{name: value}`, `None` for what is not given.
        """
        values = {name: value for name, value in given.items() if value is not None}
        known = dataclasses.replace(self, **values)
        defaults = {n: getattr(known, n) or value for n, value in DEFAULTS.items()}
        return dataclasses.replace(known, **defaults)

    def for_size(self, height, width):
        """The same for a model of another size; only squares are ever prepared.

        Args:
            height, width: of the model's images; `None`: any.
        """
        if height is None:
            return self
        return dataclasses.replace(self, image_size=height if height == width else None)

    def as_json(self):
        """What an origin says of it; class names stand there by themselves."""
        return {name: getattr(self, name) for name in NEEDED}


def preprocessing_of(path):
    """What is known of the images that weights were trained on.

    Read from `recipe.json` and `report.json` in the folder or beside the file, and
    from the origin that the artifact itself carries, which counts most.

    Args:
        path: of weights: a run's folder, a SavedModel's or a file.

    Raises:
        InputError: something such that cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    values, found = {}, []
    for name in FILES:
        if (folder / name).is_file():
            found.append(str(folder / name))
            written = _read(folder / name)
            for part in (written, written.get("recipe"), written.get("data")):
                values |= _known(part)
    carried = _carried(path)
    if carried:
        found.append(str(path))
        values |= _known(carried) | _known(carried.get("preprocessing"))
    return Preprocessing(**values, found=tuple(found))


def _carried(path):
    """The artifact's origin, `None` where there is none, or no artifact."""
    try:
        locate(path)
    except KmlpError:
        return None
    return origin.read(path)


def _known(part):
    """The fields that a part of a file has a value for."""
    if not isinstance(part, dict):
        return {}
    names = {field.name for field in dataclasses.fields(Preprocessing)} - {"found"}
    known = {n: part[n] for n in names if part.get(n) is not None}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}


def _read(path):
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            "What a run wrote of its preprocessing cannot be read: restore the file, "
            f"or move it away and pass the values. Received: {str(path)!r} ({error})"
        ) from error
    return values if isinstance(values, dict) else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensePreprocessing:
    """What travels with the weights of a detector or segmenter.

    Pictures keep their aspect. A detector's are fitted to its canvas, a segmenter's to
    `resize_to`; what is left of the canvas is zero.

    Attributes:
        task: `"detection"` or `"segmentation"`.
        mean, std: per channel, of pictures in 0…1.
        canvas: height and width of the network's input.
        short_side, long_side: of a picture on a detector's canvas; `None`: as large as
            it allows.
        resize_to: long and short side of a segmenter's picture; `None`: its own.
        mode, window, stride: of a segmenter, as `kmlp.segmentation.segment` takes them.
        class_names: in the order of the classes.
        category_ids: of a detector, what COCO's files of results call the classes.
    """

    task: str
    mean: tuple
    std: tuple
    canvas: tuple
    short_side: int | None = None
    long_side: int | None = None
    resize_to: tuple | None = None
    mode: str = "whole"
    window: tuple | None = None
    stride: tuple | None = None
    class_names: tuple | None = None
    category_ids: tuple | None = None

    @classmethod
    def of(cls, recipe, source):
        """Those of a recipe of training and its data."""
        sides = recipe.short_sides
        return cls(
            task=recipe.task,
            mean=tuple(recipe.mean),
            std=tuple(recipe.std),
            canvas=tuple(recipe.image_size),
            short_side=None if sides is None else sides[1],
            long_side=recipe.long_side,
            resize_to=recipe.resize_to,
            mode=recipe.test_mode,
            window=recipe.test_size if recipe.test_mode == "slide" else None,
            stride=recipe.test_stride,
            class_names=tuple(source.class_names),
            category_ids=tuple(source.category_ids) or None,
        )

    @property
    def sides(self):
        """Short and long side that pictures get, `None` each where they keep theirs."""
        if self.task == "detection":
            return self.short_side, self.long_side
        return (None, None) if self.resize_to is None else sorted(self.resize_to)

    def for_size(self, height, width):
        """The same for a model of another size; `None`: any, and the canvas stays."""
        if height is None:
            return self
        return dataclasses.replace(self, canvas=(height, width))

    def as_json(self):
        """What an origin says of it; class names stand there by themselves."""
        values = dataclasses.asdict(self)
        values.pop("class_names")
        return values

    @classmethod
    def from_origin(cls, carried):
        """What an artifact's origin says, `None` where it is none of a dense model.

        Args:
            carried: `kmlp.artifacts.origin.read`, or `None`.
        """
        found = (carried or {}).get("preprocessing") or {}
        if "task" not in found:
            return None
        fields = {field.name for field in dataclasses.fields(cls)}
        values = {name: found[name] for name in fields & found.keys()}
        values["class_names"] = carried.get("class_names")
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
            }
        )
