"""Counting right answers."""

import numpy as np

from kmlp.errors import InputError, RunError

TOP = 5


class Score:
    """Top-1 and top-5 of images that may have several right classes, or none.

    An image counts as right where one of its classes is among the first answers; one
    without a class does not count at all, as ImageNet-ReaL has it (arXiv:2006.07159,
    section 3). Of equal answers the lower class comes first.

    Args:
        truth: for each image the classes that are right.
        classes: number of outputs.

    Attributes:
        count: images so far.
        top1, top5: how many of them were right.
    """

    def __init__(self, truth, classes):
        self.truth, self.classes = truth, classes
        self.count = self.top1 = self.top5 = 0

    def add(self, outputs, images):
        """Takes a batch.

        Args:
            outputs: `(N, classes)`.
            images: `(N,)` indices into `truth`.

        Raises:
            InputError: an output is not finite.
        """
        if not np.isfinite(outputs).all():
            raise RunError(
                "The weights give outputs that are not finite, such as "
                f"{outputs[~np.isfinite(outputs)][0]}: they are damaged, or trained to "
                "divergence.",
            )
        order = np.argsort(-outputs, axis=-1, kind="stable")[:, :TOP]
        for answers, image in zip(order.tolist(), images):
            right = self.truth[image]
            if len(right):
                self.count += 1
                self.top1 += answers[0] in right
                self.top5 += any(answer in right for answer in answers)

    def shares(self):
        """`{"images", "top1", "top5"}`, the latter in 0…1.

        Raises:
            InputError: there was no image with a class.
        """
        if not self.count:
            raise InputError("No image has a label: nothing was evaluated.")
        top1, top5 = self.top1 / self.count, self.top5 / self.count
        return {"images": self.count, "top1": top1, "top5": top5}
