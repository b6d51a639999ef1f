"""How pictures become the input of a detector or segmenter."""

import dataclasses


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
