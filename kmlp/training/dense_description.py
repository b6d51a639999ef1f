"""A dense run in words that JSON can hold."""

from kmlp.recipes import to_json
from kmlp.training.resolved import serialized


def identity(job):
    """What decides the result of a run; another number of devices does not."""
    return {
        "architecture": job.options.arch,
        "model": serialized(job.engine.model),
        "recipe": to_json(job.recipe),
        "data": job.source.name,
        "pictures": [job.source.train.count, job.source.validation.count],
        "class_names": list(job.source.class_names),
        "seed": job.options.seed,
        "precision": job.options.precision,
        "weights": None if job.options.weights is None else str(job.options.weights),
        "rehearsal": job.options.rehearse,
    }


def written(job):
    """`recipe.json`: the recipe as it was resolved, and what it ran on."""
    source = job.source
    return {
        "architecture": job.options.arch,
        "recipe": to_json(job.recipe),
        "initial_weights": job.options.weights and str(job.options.weights),
        "seed": job.options.seed,
        "precision": job.options.precision,
        "xla": job.options.xla,
        "engine": job.engine.description,
        "data": {
            "name": source.name,
            "task": source.task,
            "class_names": list(source.class_names),
            "training_images": source.train.count,
            "validation_images": source.validation.count,
            "notes": list(source.notes),
        },
    }
