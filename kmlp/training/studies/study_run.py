"""The job of `--study`: a table of ablations, trained row by row."""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import shutil
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kmlp.artifacts.run_curves import ROWS
from kmlp.benchmarking.devices import Peak, device_name
from kmlp.console import first_line
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

# What reading a result raises that was cut or changed.
_DAMAGED = (OSError, ValueError, KeyError, TypeError)


def run(options: argparse.Namespace) -> None:
    """Train what is left of a study, within the time there is.

    Raises:
        InputError: If the options or data cannot be worked with.
        RunError: If a run ends before its time.
    """
    begun = time.monotonic()
    study = find(options.study, options.scale, options.rows, options.against)
    if read_cluster(os.environ.get("TF_CONFIG", "")).workers > 1:
        raise InputError(
            "A study runs in one process: unset TF_CONFIG. Received: TF_CONFIG"
        )
    recipe = row_recipe(study, study.rows[0], options)
    if options.data is None and not options.throughput:
        raise InputError("A study needs --data: an image folder, or a packed .npz file")
    check_results(options)
    home = options.output / "studies"
    engine = open_engine(options.strategy, options.devices, tensorflow_reads=False)
    _keep_compiled(home / "compiled")
    data = _data(options, study, recipe, home)
    seeds = options.seeds or [options.seed]
    jobs = [
        resolve_row(study, row, _with_seed(options, seed), engine, data)
        for seed in seeds
        for row in study.rows
    ]
    logs = options.logs / study.folder
    if options.throughput:
        _throughput(study, jobs[: len(study.rows)], logs)
        return
    until = None if options.minutes is None else begun + 60 * options.minutes
    about = _about(study, jobs)
    print("; ".join(f"{word} {said}" for word, said in about.items()))
    # The table is of all rows that there are results of, whichever are asked for now.
    whole = find(options.study, options.scale)
    kept = [resolve_row(whole, row, options, engine, data) for row in whole.rows]
    peak, said = Peak(options.precision), ""
    for number, job in enumerate(jobs, 1):
        label = job.task.short
        if len(jobs) > len(study.rows):
            label += f", seed {job.options.seed}"
        print(f"Row {number}/{len(jobs)}: {label}", end="", flush=True)
        try:
            _row(job, label, home / study.folder, logs, until, peak)
        except TimeUp as end:
            if said:
                print(said)
            print(f"{label}: {end}")
            print(
                f"{number - 1} of {len(jobs)} rows are finished; the same command "
                "goes on"
            )
            return
        said = _table(study, kept, logs, about)
    print(said)
    if study.scale.name == "smoke":
        print(REHEARSAL)
    print(f"Written to {logs}")


def _with_seed(options, seed):
    return argparse.Namespace(**{**vars(options), "seed": seed})


def _table(study, jobs, logs, about):
    """Write the table of what is asked for and of what is there; return it as text.

    Args:
        study: Study that is asked for.
        jobs: Jobs of all rows of its table, of any seed.
        logs: Folder of the results.
        about: What all rows have in common, by a word each.
    """
    found = {job.task.row.name: _kept(job, logs) for job in jobs}
    rows = [job.task.row for job in jobs]
    rows = tuple(row for row in rows if row in study.rows or found[row.name])
    shown = dataclasses.replace(study, rows=rows)
    shown.write(found, logs, about)
    return "\n".join([shown.text(found), *shown.orderings(found)])


def _kept(job, logs):
    """Return the results of a row that are there, by their seed."""
    found = {}
    for path in sorted((logs / ROWS / job.task.short).glob("*.json")):
        try:
            if (result := _result(path, job, of_any_seed=True)) is not None:
                found[result["identity"]["seed"]] = result
        except _DAMAGED as error:
            print(f"left out {path}: {first_line(error)}", file=sys.stderr)
    return found


def _result(path, job, *, of_any_seed=False):
    """Return a result that a finished row left, or `None` where it is another's.

    Raises:
        One of `_DAMAGED`: If there is none, or it cannot be read.
    """
    result = json.loads(path.read_text("utf-8"))
    found, own = result["identity"], job.task.identity(job)
    if of_any_seed:
        own["seed"] = found["seed"]
    return result if found == json.loads(json.dumps(own)) else None


def _row(job, label, folder, logs, until, peak):
    """Train a row, unless its result is there."""
    own = RunFolder(folder / ROWS / job.task.short, job.task.identity(job))
    mark = own.path.name.removeprefix(PREFIX)
    path = logs / ROWS / job.task.short / f"seed{job.options.seed}-{mark}.json"
    if job.options.fresh:
        path.unlink(missing_ok=True)
    elif (result := _finished(path, job)) is not None:
        print(f", finished {result['finished']}: top-1 {result['top1']:.2f}")
        own.remove()
        return
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
        f"{label}: top-1 {result['top1']:.2f}, "
        f"merged {result['merged_top1']:.2f}, "
        f"{result['images_per_second']:,.0f} images/s, "
        f"{result['peak_share']:.1%} of the peak"
    )
    gc.collect()  # a network and its slots, before the next one's


def _keep(path, result, history):
    with writing("The row's result", path) as draft:
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(history, path.with_suffix(".csv"))
        draft.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def _finished(path, job):
    """Return a row's own result, or `None` where it must be made."""
    try:
        return _result(path, job)
    except FileNotFoundError:
        return None
    except _DAMAGED:
        print(f", its result {path} is damaged and made again", end="")
        return None


def _throughput(study, jobs, logs):
    """Measure the steps of all rows and train nothing."""
    about = _about(study, jobs[:1])
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
    found = {job.task.row.name: {0: speed} for job, speed in zip(jobs, speeds)}
    about["matmul peak"] = f"{peak.value / 1e12:,.2f} T operations/s in {precision}"
    print(f"matmul peak {about['matmul peak']}")
    print(study.text(found, SPEED))
    study.write(found, logs, about, SPEED, "throughput")
    print(f"Written to {logs}")


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
    packed = home / "packed"
    data = open_packed(options.data, size, packed, options.on_corrupt, options.exif)
    if scale.training is None:
        return data
    return data.part(scale.training, scale.test)


def _about(study, jobs):
    """Return what all rows have in common, by a word each."""
    job = jobs[0]
    data, options = job.source, job.options
    seeds = ", ".join(str(job.options.seed) for job in jobs[:: len(study.rows)])
    return {
        # The folder's own name: where it lies is this machine's affair.
        "data": f"{Path(data.name).name}, {len(data.class_names)} classes, "
        f"{len(data.train_labels):,} images to train, {len(data.test_labels):,} to "
        "test",
        "recipe": f"{job.recipe.name}, {job.epochs} epochs, batch "
        f"{job.recipe.batch_size}, seed {seeds}, {options.precision}",
        "device": f"{device_name()} ({job.engine.description})",
        "scale": study.scale.name
        + (", a rehearsal: no claim" if study.scale.name == "smoke" else ""),
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
