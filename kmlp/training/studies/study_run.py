"""The job of `--study`: a table of ablations, trained row by row."""

import argparse
import contextlib
import gc
import json
import os
import shutil
import time

import keras
import numpy as np

from kmlp.benchmarking.devices import Peak, device_name
from kmlp.errors import InputError, TimeUp
from kmlp.recipes.choosing import LARGEST_SMALL
from kmlp.training.checkpoints import PREFIX, RunFolder, writing
from kmlp.training.engine.cluster import open_engine, read_cluster
from kmlp.training.input.arrays import Packed, open_packed
from kmlp.training.job import check_results
from kmlp.training.loop import train
from kmlp.training.monitor import HISTORY
from kmlp.training.studies import throughput
from kmlp.training.studies.row_job import resolve_row, results, row_recipe
from kmlp.training.studies.study import REHEARSAL, SPEED, find, made_for


def run(options: argparse.Namespace) -> None:
    """Train what is left of a study, within the time there is.

    Raises:
        InputError: If the options or data cannot be worked with.
        RunError: If a run ends before its time.
    """
    begun = time.monotonic()
    study = find(options.study, options.scale)
    if read_cluster(os.environ.get("TF_CONFIG", "")).workers > 1:
        raise InputError(
            "A study runs in one process: unset TF_CONFIG. Received: TF_CONFIG"
        )
    recipe = row_recipe(study, study.rows[0], options)
    if options.data is None and not options.throughput:
        raise InputError("A study needs --data: an image folder, or a packed .npz file")
    check_results(options)
    home = options.output / "studies"
    folder = home / study.folder
    engine = open_engine(options.strategy, options.devices, tensorflow_reads=False)
    _keep_compiled(home / "compiled")
    data = _data(options, study, recipe, home)
    jobs = [resolve_row(study, row, options, engine, data) for row in study.rows]
    if options.throughput:
        _throughput(study, jobs, folder)
        return
    until = None if options.minutes is None else begun + 60 * options.minutes
    about = _about(jobs[0])
    print("; ".join(f"{word} {said}" for word, said in about.items()))
    found, peak = {}, Peak(options.precision)
    for number, job in enumerate(jobs, 1):
        print(f"Row {number}/{len(jobs)}: {job.task.short}", end="", flush=True)
        try:
            found[job.task.row.name] = _row(job, folder, until, peak)
        except TimeUp as end:
            _pause(study, found, folder, about, job, str(end))
            return
        study.write(found, folder, about)
    print(study.text(found))
    for said in study.orderings(found):
        print(said)
    if study.scale.name == "smoke":
        print(REHEARSAL)
    print(f"Written to {folder}")


def _row(job, folder, until, peak):
    """Return a row's result, read back where it is there."""
    own = RunFolder(folder / "rows" / job.task.short, job.task.identity(job))
    mark = own.path.name.removeprefix(PREFIX)
    path = own.path.with_name(f"{mark}.json")
    if job.options.fresh:
        path.unlink(missing_ok=True)
    elif (result := _finished(path, job.task.identity(job))) is not None:
        print(f", finished {result['finished']}: top-1 {result['top1']:.2f}")
        own.remove()
        return result
    # The peak is known once a row was trained here: without one, no time is too late.
    if peak.value and until is not None and time.monotonic() >= until:
        print()
        raise TimeUp("The time is up before this row begins.")
    with own.open(job.options.fresh):
        schedule = job.prepare()
        print(
            f", {job.engine.model.count_params():,} parameters, {job.epochs} epochs of "
            f"{job.steps_per_epoch:,} steps of {job.recipe.batch_size:,} images",
            flush=True,
        )
        history = train(job, schedule, own.path, until)
        result = results(job, history)
        # Steps beyond the end: the weights are of no further use.
        (speed,) = throughput.measured([throughput.Stopwatch(job)], peak)
        result |= speed | {
            "backend": keras.backend.backend(),
            "device": device_name(),
            "precision": job.options.precision,
        }
        _keep(path, result, own.path / HISTORY)
        own.remove()
    print(
        f"{job.task.short}: top-1 {result['top1']:.2f}, "
        f"merged {result['merged_top1']:.2f}, "
        f"{result['images_per_second']:,.0f} images/s, "
        f"{result['peak_share']:.1%} of the peak"
    )
    gc.collect()  # a network and its slots, before the next one's
    return result


def _keep(path, result, history):
    with writing("The row's result", path) as draft:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(history, path.with_suffix(".csv"))
        draft.write_text(json.dumps(result, indent=2) + "\n")


def _finished(path, identity):
    """Return the result that a finished row left, or `None`."""
    try:
        result = json.loads(path.read_text())
        found = result["identity"] == json.loads(json.dumps(identity))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        print(f", its result {path} is damaged and made again", end="")
        return None
    return result if found else None


def _pause(study, found, folder, about, job, said):
    """Say how far a study has come whose time is up."""
    if found:
        study.write(found, folder, about)
        print(study.text(found))
    print(f"{job.task.short}: {said}")
    print(
        f"{len(found)} of {len(study.rows)} rows are finished; the same command goes on"
    )


def _throughput(study, jobs, folder):
    """Measure the steps of all rows and train nothing."""
    about = _about(jobs[0])
    precision = jobs[0].options.precision
    peak = Peak(precision)
    peak.measure()
    batch = throughput.batch_milliseconds(jobs[0])
    about["host"] = f"{batch:.2f} ms to prepare a batch"
    print("; ".join(f"{word} {said}" for word, said in about.items()), flush=True)
    watches = []
    for job in jobs:
        begun = time.monotonic()
        # An engine holds one network: each row has its own.
        options = job.options
        engine = open_engine(options.strategy, options.devices, tensorflow_reads=False)
        own = resolve_row(study, job.task.row, options, engine, job.source)
        own.prepare()
        watches.append(throughput.Stopwatch(own))
        print(
            f"{job.task.short} is warm after {time.monotonic() - begun:.0f} s",
            flush=True,
        )
    speeds = throughput.measured(watches, peak)
    found = {job.task.row.name: speed for job, speed in zip(jobs, speeds)}
    about["matmul peak"] = f"{peak.value / 1e12:,.2f} T operations/s in {precision}"
    print(f"matmul peak {about['matmul peak']}")
    print(study.text(found, SPEED))
    study.write(found, folder, about, SPEED, "throughput")
    print(f"Written to {folder}")


def _data(options, study, recipe, home):
    """Return the study's images, cut to its scale."""
    size, scale = recipe.image_size, study.scale
    if options.data is None:
        random = np.random.default_rng(options.seed)
        count = 8 * recipe.batch_size
        images = random.integers(0, 256, (count, size, size, 3), np.uint8)
        labels = random.integers(0, 100, count).astype("int32")
        names = tuple(map(str, range(100)))
        return Packed("random images", names, images, labels, images, labels, "")
    data = open_packed(options.data, size, home / "packed", options.on_corrupt)
    if scale.training is None:
        return data
    return data.part(scale.training, scale.test)


def _about(job):
    """Return what all rows have in common, by a word each."""
    data, options = job.source, job.options
    return {
        "data": f"{data.name}, {len(data.class_names)} classes, "
        f"{len(data.train_labels):,} images to train, {len(data.test_labels):,} to "
        "test",
        "recipe": f"{job.recipe.name}, {job.epochs} epochs, batch "
        f"{job.recipe.batch_size}, seed {options.seed}, {options.precision}",
        "device": f"{device_name()} ({job.engine.description})",
        "scale": job.task.study.scale.name
        + (", a rehearsal: no claim" if job.task.study.scale.arguments else ""),
        "paper": "its figures are of "
        + ("CIFAR-100" if made_for(job.task.row) <= LARGEST_SMALL else "ImageNet-1k"),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _keep_compiled(folder):
    """Let JAX keep what it compiles for a GPU, since a study comes in pieces."""
    if keras.backend.backend() != "jax":
        return
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and any(
        device.platform != "cpu" for device in jax.devices()
    ):
        jax.config.update("jax_compilation_cache_dir", str(folder))
