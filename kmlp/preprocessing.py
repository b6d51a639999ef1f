"""Describe how images become a model's input, which travels with its weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from kmlp.artifacts import origin
from kmlp.artifacts.locating import locate
from kmlp.artifacts.origin_members import LARGEST_SIDE, WRITTEN, check
from kmlp.budget import parse_json
from kmlp.errors import InputError, KmlpError
from kmlp.typing import Config, PathLike

# The later overrides the former: a report has what training really used.
FILES = ("recipe.json", "report.json")
# Values for fields that a run left open, as training has them.
DEFAULTS = {"test_crop": 1.0, "test_interpolation": "bilinear"}
NEEDED = ("image_size", "mean", "std", "test_crop", "test_interpolation")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The preparation that makes images a model's input; `None` where unknown.

    The shorter side is resized to `image_size / test_crop`, and the centre taken.

    Attributes:
        mean, std: Statistics per channel, of images in 0…1.
        image_size: Height and width of the input.
        test_crop: Share of the resized image that the centre crop shows.
        test_interpolation: Interpolation of that resizing, `"bilinear"` or `"bicubic"`.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`.
        class_names: Names in the order of the outputs.
        found: Files that said so.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int | None = None
    test_crop: float | None = None
    test_interpolation: str | None = None
    exif: str = "ignore"
    class_names: tuple[str, ...] | None = None
    found: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether everything that an image needs is known."""
        return None not in [getattr(self, name) for name in NEEDED]

    def completed(self, given: Mapping[str, Any]) -> Self:
        """Return it with values that override it, and defaults where neither knows.

        Size, mean and deviation have no defaults.

        Args:
            given: Values `{name: value}`, `None` for what is not given.
        """
        values: Any = {n: value for n, value in given.items() if value is not None}
        known = dataclasses.replace(self, **values)
        defaults: Any = {n: getattr(known, n) or value for n, value in DEFAULTS.items()}
        return dataclasses.replace(known, **defaults)

    def for_size(self, height: int | None, width: int | None) -> Self:
        """Return the same for a model of another size; only squares are ever prepared.

        Args:
            height, width: Size of the model's images; `None`: any.
        """
        if height is None:
            return self
        return dataclasses.replace(self, image_size=height if height == width else None)

    def as_json(self) -> Config:
        """Return the entries of an origin; class names stand there by themselves."""
        return {name: getattr(self, name) for name in (*NEEDED, "exif")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DensePreprocessing:
    """The preparation that makes pictures the input of a detector or segmenter.

    Pictures keep their aspect. A detector's are fitted to its canvas, a segmenter's to
    `resize_to`; what is left of the canvas is zero.

    Attributes:
        task: Task, `"detection"` or `"segmentation"`.
        mean, std: Statistics per channel, of pictures in 0…1.
        canvas: Height and width of the network's input.
        short_side, long_side: Sides of a picture on a detector's canvas; `None`: as
            large as it allows.
        resize_to: Long and short side of a segmenter's picture; `None`: its own.
        mode, window, stride: Arguments of `kmlp.segmentation.segment`.
        class_names: Names in the order of the classes.
        category_ids: Numbers by which COCO's files of results call a detector's
            classes.
        exif: Treatment of the orientation that a JPEG's EXIF states, `"ignore"` or
            `"apply"`.
    """

    task: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    canvas: tuple[int, int]
    short_side: int | None = None
    long_side: int | None = None
    resize_to: tuple[int, int] | None = None
    mode: str = "whole"
    window: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    exif: str = "ignore"

    @classmethod
    def of(cls, recipe: Any, source: Any) -> Self:
        """Return that of a recipe of training and its data, a `DenseSource`."""
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
            exif="apply" if source.validation.upright else "ignore",
        )

    @property
    def sides(self) -> tuple[int | None, int | None]:
        """Return the pictures' short and long side, `None` where they keep theirs."""
        if self.task == "detection":
            return self.short_side, self.long_side
        if self.resize_to is None:
            return None, None
        return min(self.resize_to), max(self.resize_to)

    def for_size(self, height: Any, width: Any) -> Self:
        """Return the same for a model of another size; `None`: the canvas stays."""
        if height is None:
            return self
        return dataclasses.replace(self, canvas=(height, width))

    def as_json(self) -> Config:
        """Return the entries of an origin; class names stand there by themselves."""
        values = dataclasses.asdict(self)
        values.pop("class_names")
        return values

    @classmethod
    def from_origin(cls, carried: Config | None) -> Self | None:
        """Return that of an artifact's origin, `None` where it is of no dense model.

        Args:
            carried: Entries that `kmlp.artifacts.origin.read` found, or `None`.

        Raises:
            InputError: If they contradict one another.
        """
        carried = carried or {}
        found = carried.get("preprocessing") or {}
        if "task" not in found:
            return None
        names, numbers = carried.get("class_names"), found.get("category_ids")
        if names and numbers and len(names) != len(numbers):
            raise InputError(
                "An origin has as many category_ids as class_names: export it "
                f"again. Received: {len(numbers)} and {len(names)}"
            )
        return cls(**_known(cls, {**found, "class_names": names}))


def preprocessing_of(path: PathLike) -> Preprocessing:
    """Read what is known of the images that weights were trained on.

    It stands in `recipe.json` and `report.json` in the folder or beside the file, and
    in the origin that the artifact itself carries, which counts most.

    Args:
        path: Path of weights: a run's folder, a SavedModel's or a file.

    Raises:
        InputError: If one of them cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    values: Config = {}
    found = []
    for name in FILES:
        if (folder / name).is_file():
            found.append(str(folder / name))
            written = _read(folder / name)
            for part in (written, written.get("recipe"), written.get("data")):
                values |= _known(Preprocessing, part)
    carried = _carried(path)
    if carried:
        found.append(str(path))
        named = {"class_names": carried.get("class_names")}
        for part in (named, carried.get("preprocessing")):
            values |= _known(Preprocessing, part)
    known = Preprocessing(**{**values, "found": tuple(found)})
    resized = (known.image_size or 0) / (known.test_crop or 1)
    if resized > LARGEST_SIDE:
        raise InputError(
            f"Images would be resized to {resized:,.0f} pixels before they are "
            f"cropped, of at most {LARGEST_SIDE:,}. Received: image_size="
            f"{known.image_size}, test_crop={known.test_crop} of {str(path)!r}"
        )
    return known


def _carried(path):
    """Return the artifact's origin, `None` where there is none, or no artifact."""
    try:
        locate(path)
    except KmlpError:
        return None
    return origin.read(path)


def _known(cls, part):
    """Return the fields of a class that a part of a file has a value for."""
    if not isinstance(part, dict):
        return {}
    names = [field.name for field in dataclasses.fields(cls)]
    known = {n: part[n] for n in names if part.get(n) is not None}
    return {n: tuple(v) if isinstance(v, list) else v for n, v in known.items()}


def _read(path):
    try:
        values = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            "What a run wrote of its preprocessing cannot be read: restore the file, "
            f"or move it away and pass the values. Received: {str(path)!r} ({error})"
        ) from error
    for part in (values, values.get("recipe"), values.get("data")):
        # A canvas, of a detector or segmenter, whose origin says all that is needed.
        if isinstance(part, dict) and isinstance(part.get("image_size"), list):
            del part["image_size"]
    check(values, WRITTEN, path)
    return values
