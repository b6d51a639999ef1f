"""What a trained model sees in pictures of the validation, to look at."""

import numpy as np

from kmlp.data.dense.results import to_picture
from kmlp.predicting.detecting import Detected, overlay
from kmlp.predicting.drawing import contact_sheet, draw_classes, draw_detections
from kmlp.segmentation import segment
from kmlp.training.tasks.dense_tasks import at_size

SHEET, SHOWN_SCORE = "predictions.png", 0.5
ROWS = 6


def draw(model, job, folder, rows=ROWS):
    """Writes single pictures and a sheet of them: image, truth, prediction.

    Args:
        model: the trained model.
        job: `DenseJob`.
        folder: where they go; made.
        rows: how many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    split = job.source.validation
    drawn = {"detection": _detections, "segmentation": _maps}[job.recipe.task]
    sheet = []
    for index, picture in drawn(model, job, min(rows, split.count)):
        picture[-1].save(folder / f"{index:06}.png")
        sheet.append(picture)
    if sheet:
        titles = ("image", "truth", "prediction")
        contact_sheet(sheet, titles).save(folder / SHEET)


def _detections(model, job, rows):
    source, shown = job.source, 0
    names, palette = source.class_names, source.palette
    for images, targets, weights in job.validation_batches():
        outputs = model(np.asarray(images), training=False)
        outputs = {name: np.asarray(part) for name, part in outputs.items()}
        for row in np.flatnonzero(np.asarray(weights) > 0):
            index = int(targets["index"][row])
            image = source.validation.image(index)
            found = to_picture(
                {name: part[row] for name, part in outputs.items()},
                tuple(map(int, targets["shape"][row])),
                image.shape[:2],
            )
            found = Detected(source.validation.place(index), image, found)
            objects = source.validation.annotation(index)
            truth = {"boxes": objects.boxes, "classes": objects.classes}
            if "masks" in outputs:
                truth["masks"] = objects.masks()
            yield (
                index,
                [
                    image,
                    draw_detections(image, truth, names, palette=palette),
                    overlay(found, names, SHOWN_SCORE, palette),
                ],
            )
            shown += 1
            if shown == rows:
                return


def _maps(model, job, rows):
    source, recipe = job.source, job.recipe
    names, palette = source.class_names, source.palette
    if recipe.test_mode == "whole":
        model = at_size(model, job.task.size) or model
    for index, (image, _, _) in enumerate(job.validation_batches().unbatch()):
        if index == rows:
            return
        own = source.validation.image(index)
        logits = segment(
            model,
            np.asarray(image),
            mode=recipe.test_mode,
            window=recipe.test_size if recipe.test_mode == "slide" else None,
            stride=recipe.test_stride,
        )
        rows_, columns = (
            ((np.arange(n) + 0.5) * (m / n)).astype(int)
            for n, m in zip(own.shape[:2], logits.shape[:2])
        )
        found = logits.argmax(-1)[rows_[:, None], columns]
        truth = source.validation.annotation(index)
        yield (
            index,
            [
                own,
                draw_classes(own, truth, names, palette=palette),
                draw_classes(own, found, names, palette=palette),
            ],
        )
