"""The embedded data: drawn scenes, the same on every machine, without a file."""

import numpy as np

from kmlp.data.dense.drawing import SHAPES, draw
from kmlp.data.dense.instances import encoded
from kmlp.data.dense.palettes import palette
from kmlp.data.dense.source import DenseSource, DenseSplit, Objects
from kmlp.errors import InputError

NAME = "scenes"
SIZE = 96
TRAIN, VALIDATION = 2048, 256


def scenes(task, *, train=TRAIN, validation=VALIDATION, size=SIZE, seed=0):
    """Circles, squares and triangles on textured noise, one to four to a scene.

    Later objects hide earlier ones. Boxes and masks are of what is seen.

    Args:
        task: `"detection"`, of three classes, or `"segmentation"`, where class 0 is
            the background.
        train, validation: number of scenes.
        size: height and width.
        seed: integer; each scene is a function of it and of its own number.

    Returns:
        A `DenseSource`.

    Raises:
        InputError: no scenes.
    """
    if min(train, validation) < 1:
        raise InputError(
            "There must be scenes to train on and to validate on. "
            f"Received: {train} and {validation}"
        )
    background = task == "segmentation"
    names = ("background",) * background + SHAPES
    return DenseSource(
        name=NAME,
        task=task,
        class_names=names,
        train=SceneSplit(f"{NAME} train", task, train, size, (seed, 0)),
        validation=SceneSplit(f"{NAME} val", task, validation, size, (seed, 1)),
        palette=palette(len(names), background),
        category_ids=() if background else tuple(range(1, len(names) + 1)),
    )


class SceneSplit(DenseSplit):
    """Scenes, drawn when first asked for, then kept.

    Args:
        name: for people.
        task: `"detection"` or `"segmentation"`.
        count: number of scenes.
        size: height and width.
        seed: integers that no other split has.
    """

    in_memory = True

    def __init__(self, name, task, count, size, seed):
        self.name, self.task, self.count = name, task, count
        self.size = (size, size)
        self._seed = seed
        self._drawn = [None] * count

    def image(self, index):
        return self._scene(index)[0]

    def annotation(self, index):
        _, owners, classes = self._scene(index)
        if self.task == "segmentation":
            return np.concatenate([[0], classes + 1]).astype("uint8")[owners]
        boxes = [_box(owners == k + 1) for k in range(len(classes))]
        return Objects(
            boxes=np.array(boxes, "float32"),
            classes=classes,
            size=self.size,
            draw=lambda k: owners == k + 1,
        )

    def place(self, index):
        return f"image {index} of {self.name}"

    def truth(self, index):
        """The objects of a scene as COCO's annotations have them, without their ids."""
        objects = self.annotation(index)
        return [
            {
                "category_id": int(label) + 1,
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": encoded(mask),
            }
            for label, mask, (x1, y1, x2, y2) in zip(
                objects.classes, objects.masks(), objects.boxes
            )
        ]

    def _scene(self, index):
        # Two threads may draw the same scene, to the same end.
        if self._drawn[index] is None:
            generator = np.random.default_rng((*self._seed, index))
            self._drawn[index] = draw(generator, self.size[0])
        return self._drawn[index]


def _box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
