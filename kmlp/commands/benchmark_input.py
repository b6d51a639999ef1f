"""`kmlp benchmark-input`: images per second of the input pipeline alone."""

import functools
import math
import multiprocessing
import os
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from kmlp.commands.arguments import Parser, positive
from kmlp.commands.main import Script
from kmlp.console import import_quietly, table
from kmlp.errors import InputError, check_known

DESCRIPTION = """\
Measures the input pipeline alone: images per second of a recipe's training batches.

    {call} --data imagenet/train --against timm

The images are read from their files, as they are where they do not fit in memory. With
--against timm, timm's own loader and Pillow prepare the same files in turn, with as
many worker processes as there are cores; this needs `pip install timm torchvision`.
"""
# As many entries as make epochs long, however few the files are.
ENTRIES = 10_000
CLASSES = 1000
# At the beginning of a round, until what was prepared ahead is used up.
WARM_SECONDS = 3


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.describe(DESCRIPTION)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER|FILE.tar",
        help="images, however deep in it",
    )
    add("--recipe", default="convmlp_imagenet", metavar="NAME")
    add("--against", choices=("timm",))
    add("--batch-size", type=positive, default=64, metavar="N")
    add("--seconds", type=positive, default=10, help="of a round (default: 10)")
    add("--rounds", type=positive, default=5, help="(default: 5)")
    parser.set_defaults(job=_run)


SCRIPT = Script("benchmark_input.py", add_arguments)
main, parse = SCRIPT.main, SCRIPT.parse


def _run(options):
    import_quietly()
    with tempfile.TemporaryDirectory() as folder:
        _compare(options, _images_of(options.data, folder))


def _compare(options, files):
    """Measure, the pipelines taking turns, and print the table."""
    from kmlp.benchmarking.devices import usable_cores
    from kmlp.recipes.choosing import CATALOGUE

    check_known(options.recipe, CATALOGUE, "recipe")
    recipe = CATALOGUE[options.recipe].recipe
    torch = _imported_torch() if options.against == "timm" else None
    cores = usable_cores()
    entries = (files * -(-ENTRIES // len(files)))[:ENTRIES]
    batch_size = options.batch_size
    pipelines = {"ours": _ours(entries, recipe, batch_size)}
    if torch:
        pipelines |= _timms(torch, entries, recipe, batch_size, cores)
    results = {name: [] for name in pipelines}
    for _ in range(options.rounds):
        for name, batches in pipelines.items():
            results[name].append(_measure(batches, batch_size, options.seconds))
    print(
        f"{recipe.name}, {recipe.image_size}x{recipe.image_size}, {len(files)} files, "
        f"{cores} cores; median of {options.rounds} rounds of {options.seconds} s"
    )
    rows = []
    for name, values in results.items():
        wall, processor = (statistics.median(column) for column in zip(*values))
        own = (None, None)
        if not math.isnan(processor):
            own = (f"{processor:.0f}", f"{1000 / processor:.2f}")
        rows.append((name, f"{wall:.0f}", *own))
    print(table(("", "images/s", "per core", "ms of a core"), rows))


def _images_of(path, folder):
    """Find the images in a folder, or in a tar file that is unpacked into `folder`."""
    from kmlp.data.image_files import list_images
    from kmlp.data.images import check_folder

    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        path = Path(folder)
    check_folder(path, "--data takes a folder of images or a .tar of them")
    found = list_images(path)
    found.say()
    return found.images("--data takes one that has some", path)


def _measure(batches, batch_size, seconds):
    """Return images per second, and images per second of a processor core."""
    end = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < end:
        next(batches)
    start, used, count = time.perf_counter(), _processor_seconds(), 0
    while time.perf_counter() < start + seconds:
        next(batches)
        count += batch_size
    elapsed = time.perf_counter() - start
    return count / elapsed, count / (_processor_seconds() - used)


def _processor_seconds():
    """Return the CPU time of this process and its workers; NaN if none is told."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        try:
            fields = (
                Path(f"/proc/{child.pid}/stat").read_text("utf-8").rpartition(")")[2]
            )
        except OSError:  # not on this system
            return math.nan
        user, system = fields.split()[11:13]
        total += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return total


def _ours(entries, recipe, batch_size):
    """Iterate over our training batches, read from files."""
    import numpy as np

    from kmlp.data.images import Files, Source, Split
    from kmlp.training.input.pipeline import training_batches

    labels = np.arange(len(entries), dtype="int32") % CLASSES
    split = Split("benchmark", Files(np.array(entries), labels))
    names = tuple(map(str, range(CLASSES)))
    dataset = training_batches(
        Source("benchmark", names, train=split, validation=split),
        recipe,
        image_size=recipe.image_size,
        batch_size=batch_size,
        global_batch=batch_size,
    )
    return iter(dataset)


def _timms(torch, entries, recipe, batch_size, cores):
    """Return iterators of timm's batches, and of its worker processes' part of them."""
    from PIL import Image
    from timm import data

    class _Images(torch.utils.data.Dataset):
        transform = None

        def __len__(self):
            return len(entries)

        def __getitem__(self, index):
            image = Image.open(entries[index]).convert("RGB")
            return self.transform(image), index % CLASSES

    loader = functools.partial(
        data.create_loader,
        input_size=(3, recipe.image_size, recipe.image_size),
        batch_size=batch_size,
        is_training=True,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.flip,
        color_jitter=None,
        auto_augment=recipe.policy,
        interpolation=recipe.interpolation,
        re_prob=recipe.erasing,
        re_mode="pixel",
        mean=recipe.mean,
        std=recipe.std,
        num_workers=cores,
        device=torch.device("cpu"),
        collate_fn=data.FastCollateMixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_probability,
            switch_prob=recipe.switch_probability,
            label_smoothing=recipe.label_smoothing,
            num_classes=CLASSES,
        ),
    )
    whole, part = loader(_Images()), loader(_Images())
    return {
        "timm": _endless(whole),
        # On a GPU's host the rest is the GPU's.
        "timm, not normalised, nothing erased": _endless(part.loader),
    }


def _endless(loader):
    """Iterate over a loader's batches, epoch after epoch."""
    while True:
        yield from loader


def _imported_torch():
    """Return PyTorch, ready for timm's loader.

    Raises:
        InputError: If it cannot be had.
    """
    if multiprocessing.get_start_method() != "fork":
        raise InputError(
            "--against timm needs worker processes that are forks of this one, as on "
            f"Linux. Received: {multiprocessing.get_start_method()} on {sys.platform}"
        )
    try:
        import torch

        # A torchvision that was built for another PyTorch lacks these; they are for
        # detection.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
        import timm  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--against timm needs timm and torchvision: pip install timm torchvision. "
            f"Received: {error}"
        ) from error
    from PIL import ImageOps

    posterize = ImageOps.posterize

    def _lenient(image, bits):
        # timm asks for no bits at all at times, which Pillow refuses since 12.
        return posterize(image, bits) if bits else image.point(lambda value: 0)

    ImageOps.posterize = _lenient
    torch.set_num_threads(1)
    return torch
