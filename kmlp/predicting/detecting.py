"""The objects in pictures."""

import dataclasses

import numpy as np

from kmlp.data.dense import results
from kmlp.data.dense.geometry import prepared
from kmlp.data.dense.results import paste, to_picture
from kmlp.data.dense.source import Unreadable, read_image
from kmlp.errors import KmlpError
from kmlp.predicting.drawing import draw_detections


@dataclasses.dataclass(frozen=True)
class Detected:
    """What a picture shows.

    Attributes:
        image: its path.
        picture: `(H, W, 3)` uint8; `None` where it cannot be read.
        objects: in its own pixels, as `kmlp.data.dense.results.to_picture` gives them.
    """

    image: str
    picture: np.ndarray | None
    objects: dict | None = None

    def mask(self, index):
        """`(H, W)` uint8 of an object; only where the detector has masks."""
        box = self.objects["whole_boxes"][index]
        return paste(self.objects["masks"][index], box, self.picture.shape[:2])


def detect(network, images, *, batch_size=8):
    """Finds objects in image files.

    Args:
        network: `DenseNetwork` of detection.
        images: paths.
        batch_size: images at a time.

    Yields:
        A `Detected` per image, in order.

    Raises:
        InputError: a detection that is not finite.
    """
    known = network.preprocessing
    for start in range(0, len(images), batch_size):
        paths = images[start : start + batch_size]
        pictures = [read(path) for path in paths]
        batch = np.zeros((len(paths), *known.canvas, 3), "float32")
        shapes = [None] * len(paths)
        for row, picture in enumerate(pictures):
            if picture is not None:
                batch[row], shapes[row] = prepared(picture, known)
        found = network(batch)
        for row, (path, picture) in enumerate(zip(paths, pictures)):
            if picture is None:
                yield Detected(path, None)
                continue
            own = {name: part[row] for name, part in found.items()}
            objects = to_picture(own, shapes[row], picture.shape[:2])
            yield Detected(path, picture, objects)


def read(path):
    """`(H, W, 3)` uint8, `None` where there is no such picture."""
    try:
        return read_image(path)
    except (OSError, Unreadable):
        return None


def in_words(detected, names, score):
    """Objects by class, those of the surest class first, each with its score."""
    scores, classes = detected.objects["scores"], detected.objects["classes"]
    by_class = {}
    for k in np.argsort(-scores, kind="stable"):
        if scores[k] >= score:
            by_class.setdefault(int(classes[k]), []).append(f"{scores[k]:.2f}")
    parts = (f"{len(s)} {names[c]} {' '.join(s)}" for c, s in by_class.items())
    return ", ".join(parts) or "nothing"


def overlay(detected, names, score, palette=None):
    """The objects over their picture, as a `PIL.Image`; `palette`: ours or another."""
    objects = detected.objects
    shown = np.flatnonzero(objects["scores"] >= score)
    objects = {name: part[shown] for name, part in objects.items()}
    if "masks" in objects:
        masks = [detected.mask(k) for k in shown]
        size = detected.picture.shape[:2]
        objects["masks"] = np.array(masks, bool).reshape(-1, *size)
    return draw_detections(detected.picture, objects, names, palette=palette)


def coco_entries(detected, image_id, known):
    """All detections of a picture as entries of COCO's files of results.

    The file's name and the class's stand beside COCO's own fields. Masks are run
    lengths, compressed where pycocotools is there, which reads both.

    Args:
        detected: `Detected`.
        image_id: number of the picture.
        known: `DensePreprocessing`.
    """
    numbers = known.category_ids or range(1, len(known.class_names) + 1)
    objects, entries = detected.objects, []
    for k, (x1, y1, x2, y2) in enumerate(objects["boxes"].tolist()):
        label = int(objects["classes"][k])
        entry = {
            "file_name": detected.image,
            "image_id": image_id,
            "category_id": int(numbers[label]),
            "category": known.class_names[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(objects["scores"][k]),
        }
        if "masks" in objects:
            entry["segmentation"] = run_lengths(detected.mask(k))
        entries.append(entry)
    return entries


def run_lengths(mask):
    """A mask as COCO has it, compressed where pycocotools is installed."""
    try:
        return results.encoded(mask)
    except KmlpError:
        flat = np.asarray(mask, bool).ravel(order="F")
        ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff([0, *ends, flat.size]).tolist()
        # The first run is of what lies outside.
        counts = [0] * bool(flat[:1].any()) + runs
        return {"size": list(mask.shape), "counts": counts}
