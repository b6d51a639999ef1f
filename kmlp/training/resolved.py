"""A job with nothing left to decide: recipe, data and devices brought together."""

import dataclasses
import functools
import json

from kmlp.data import evaluation_batches, open_source
from kmlp.errors import InputError
from kmlp.recipes import resolve, to_json, with_epochs
from kmlp.training.choices import chosen_recipe
from kmlp.training.engine.cluster import per_replica_batch
from kmlp.training.freezing import chosen
from kmlp.training.initial import initial_weights, open_initial
from kmlp.training.input import load, steps_per_epoch, training_batches
from kmlp.training.input.policies import parse
from kmlp.training.networks import build

# A rehearsal: epochs, steps of each, and images per device and micro-batch.
REHEARSED_EPOCHS, REHEARSED_STEPS, REHEARSED_BATCH = 2, 4, 8


@dataclasses.dataclass(frozen=True)
class Job:
    """A run, resolved: nothing is left to decide.

    Attributes:
        options: of the command line.
        recipe: with all that the command line changed.
        source: of the images.
        engine: on the devices.
        steps_per_epoch, epochs: the latter with cool-down.
        batch_size: of one replica.
        initial: `Initial`, the weights that training begins with; `None`: fresh ones.
        frozen: names of the parts that keep them.
    """

    options: object
    recipe: object
    source: object
    engine: object
    steps_per_epoch: int
    epochs: int
    batch_size: int
    initial: object = None
    frozen: tuple = ()

    @property
    def averaged(self):
        """Whether the averaged weights are validated and kept as best."""
        return self.recipe.evaluate == "ema"

    def training_data(self, step):
        """A function that makes this worker's data set from `step` on."""
        return functools.partial(
            training_batches,
            self.source,
            self.recipe,
            image_size=self.recipe.image_size,
            batch_size=self.batch_size,
            global_batch=self.recipe.batch_size,
            start_step=step,
            worker=self.engine.worker,
            workers=self.engine.workers,
            seed=self.options.seed,
        )

    def validation_batches(self, worker=0, workers=1, replicas=1):
        """The validation images, or a worker's share of them."""
        return evaluation_batches(
            self.source.validation,
            self.recipe,
            image_size=self.recipe.image_size,
            batch_size=self.batch_size,
            worker=worker,
            workers=workers,
            replicas=replicas,
        )

    def validation_data(self):
        """This worker's share of the validation images, in a rehearsal a few."""
        engine = self.engine
        batches = self.validation_batches(
            engine.worker, engine.workers, engine.local_replicas
        )
        if self.options.rehearse:
            batches = batches.take(REHEARSED_STEPS * self.engine.local_replicas)
        return batches


def resolve_job(options, engine):
    """The `Job` of the options, and the recipe before it was changed.

    Raises:
        InputError: data, recipe or batch that cannot be worked with.
    """
    source = open_source(
        options.data,
        data_dir=options.data_dir,
        download=options.download,
        on_corrupt=options.on_corrupt,
    )
    classes = len(source.class_names)
    if options.num_classes not in (None, classes):
        raise InputError(
            f"The data have {classes} classes: leave --num-classes out or correct it. "
            f"Received: --num-classes {options.num_classes}"
        )
    begun = None
    if options.weights is not None:
        begun = open_initial(options, chosen_recipe(options)[0].model)
    recipe, base = chosen_recipe(options, source, begun)
    start, frozen = None, ()
    if begun is not None:
        start = initial_weights(begun, options, recipe.image_size, source.class_names)
        frozen = () if options.freeze is None else chosen(options.freeze, begun)
    if options.rehearse:
        batch = REHEARSED_BATCH * engine.replicas * recipe.accumulate
        recipe = dataclasses.replace(
            with_epochs(recipe, REHEARSED_EPOCHS), batch_size=batch
        )
    if recipe.policy:
        parse(recipe.policy)  # a name that is wrong is said now
    batch_size = per_replica_batch(
        recipe.batch_size, engine.replicas, recipe.accumulate
    )
    source = load(source, recipe)
    images = source.train.count
    mean, std = _statistics(source, begun)
    recipe = resolve(recipe, images=images, flip=source.flip, mean=mean, std=std)
    steps = steps_per_epoch(images, recipe.batch_size)
    job = Job(
        options=options,
        recipe=recipe,
        source=source,
        engine=engine,
        steps_per_epoch=min(steps, REHEARSED_STEPS) if options.rehearse else steps,
        epochs=recipe.epochs + recipe.cooldown_epochs,
        batch_size=batch_size,
        initial=start,
        frozen=frozen,
    )
    return job, base


def _statistics(source, begun):
    """`(mean, std)` for a recipe without: the initial weights', or the data's."""
    known = None if begun is None else begun.preprocessing
    if known is not None and known.mean is not None and known.std is not None:
        return known.mean, known.std
    return source.mean, source.std


def network(job, precision):
    """The architecture under the recipe, with fresh weights."""
    return build(
        job.options.arch,
        len(job.source.class_names),
        job.recipe.image_size,
        job.recipe,
        local_kernels=job.options.local_kernels,
        dtype=precision,
        overrides=None if job.initial is None else job.initial.arguments,
    )


def identity(job):
    """What decides the result of a run; another number of devices does not."""
    begun = {}
    if job.initial is not None:
        begun = {"initial_weights": job.initial.identity, "frozen": list(job.frozen)}
    return {
        "architecture": job.options.arch,
        "model": serialized(job.engine.model),
        "recipe": to_json(job.recipe),
        "data": job.source.name,
        "images": [job.source.train.count, job.source.validation.count],
        "class_names": list(job.source.class_names),
        "seed": job.options.seed,
        "precision": job.options.precision,
        **begun,
    }


def serialized(model):
    """A model's arguments as JSON has them."""
    return json.loads(json.dumps(model.get_config(), default=str))


def written(job):
    """`recipe.json`: the recipe as it was resolved, and what it ran on."""
    begun = {}
    if job.initial is not None:
        begun = {"initial_weights": job.initial.described, "frozen": list(job.frozen)}
    return {
        "architecture": job.options.arch,
        **begun,
        "recipe": to_json(job.recipe),
        "seed": job.options.seed,
        "precision": job.options.precision,
        "xla": job.options.xla,
        "engine": job.engine.description,
        "data": data_summary(job.source, job.recipe),
    }


def data_summary(source, recipe):
    """What a report says of the data."""
    return {
        "name": source.name,
        "class_names": list(source.class_names),
        "image_size": recipe.image_size,
        "mean": list(recipe.mean),
        "std": list(recipe.std),
        "training_images": source.train.count,
        "validation_images": source.validation.count,
        "skipped_images": list(source.skipped),
    }
