"""What is learned: the losses of a step and the figures of an evaluation."""


class Task:
    """What an engine asks about a model, whatever it is for.

    Measures and results whose names end in "loss" are numbers; the others are shares
    in 0…1, shown as percentages. All arrays are trees: a tensor, or dicts and tuples
    of tensors, with the images of the batch as their first axis.

    Attributes:
        measures: names of what a training step measures, "loss" first.
        score: name of the result by which the best weights are chosen, the larger the
            better.
    """

    measures = ("loss",)
    score = "score"

    def training(self, model, images, targets, taught=None):
        """Losses of a step; the model's weights have the values to be learned from.

        Args:
            model: called as `model(images, training=True)`, whatever that gives;
                further layers of it may be called on the result.
            images, targets: of a micro-batch, `(N, …)`.
            taught: a teacher's answer to the images, float32; `None`: no teacher.

        Returns:
            `(N,)` float32 losses, whose mean is minimised; `(len(measures),)` float32
            sums over the batch, the losses' first.
        """
        raise NotImplementedError

    def evaluation(self, model, *batch):
        """Sums over a batch, float32 of any fixed shape.

        Args:
            model: called as `model(images, training=False)`.
            batch: as the data set gives it; its last array is `(N,)` weights, 0 for
                rows that do not count and may hold anything.
        """
        raise NotImplementedError

    def result(self, sums):
        """Results by name from the sums of all batches, float64.

        `"count"`, the images measured, is not written into a run's history.
        """
        raise NotImplementedError

    def validate(self, engine, make_dataset):
        """The results of an engine's model as it stands; all processes must call.

        Args:
            engine: whose `evaluate`, or `infer` and `gather`, see the data.
            make_dataset: of this process's share of the data.
        """
        return self.result(engine.evaluate(make_dataset))
