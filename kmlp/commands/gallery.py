"""`training/gallery.py`: the pictures of the README."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmlp.commands.arguments import Parser
from kmlp.commands.main import Script
from kmlp.console import SAVED_MODELS
from kmlp.errors import InputError, RunError

DESCRIPTION = """\
Draws the README's gallery: three small networks of the embedded digits, seen inside.

    {call}

trains them (a few minutes on two CPU cores; networks that are there are taken as they
are) and calls `kmlp plot` for each picture. Every command is printed before it runs:
with other weights it draws other networks.
"""
ROOT = SAVED_MODELS.absolute().parent
OUTPUT = ROOT / "saved_models" / "gallery"
# Grids of tokens that a picture can show: 16x16 as in RepMLPNet's Fig. 3, 8x8.
NETWORKS = {
    "repmlpnet_t224": (
        "--epochs 12 --set model.patch_size=2 model.widths=32,64,128 "
        "model.depths=2,4,2 model.share_sets=1,4,16"
    ),
    "resmlp_s12": ("--epochs 30 --set model.patch_size=4 model.width=96 model.depth=8"),
    "convmlp_s": (
        "--epochs 8 --set model.stem_width=32 model.widths=64,128,256 "
        "model.conv_blocks=1 model.depths=1,2,1"
    ),
}
# Of RepMLPNet, where a position sees 16x16 others.
_LARGEST_GRID = "stage0_block1_channel_perceptron"
SHOWN_DIGITS = (3, 5, 8)


def add_arguments(parser: Parser) -> None:
    """Add the arguments and the job."""
    parser.describe(DESCRIPTION)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=OUTPUT,
        metavar="FOLDER",
        help="of the networks, and of digits as files (default: saved_models/gallery)",
    )
    add(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="where pictures go (default: pictures in --output)",
    )
    parser.set_defaults(job=_draw)


SCRIPT = Script("gallery.py", add_arguments)
main, parse = SCRIPT.main, SCRIPT.parse


def _draw(options):
    """Train what is missing and draw everything.

    Raises:
        InputError: If a folder cannot be made.
        RunError: If a command fails.
    """
    # Commands run in the clone.
    options.output = options.output.absolute()
    pictures = (options.pictures or options.output / "pictures").absolute()
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        images = write_digits(options.output / "digits")
    except OSError as error:
        raise InputError(f"The gallery cannot be written: {error}") from error
    for name in NETWORKS:
        if not (options.output / name).is_dir():
            _call(["training/train.py", *training(name), "--output", options.output])
    runs = {name: options.output / name for name in NETWORKS}
    for name, arguments in plots(runs, images).items():
        _call(["-m", "kmlp", "plot", *arguments, "--out", pictures / f"{name}.png"])


def training(name: str) -> list[str]:
    """Return the arguments of train.py for a network."""
    return ["--arch", name, *NETWORKS[name].split()]


def plots(runs: dict[str, Any], images: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the arguments of `kmlp plot` by picture.

    Args:
        runs: Folders by architecture.
        images: Paths of image files.
    """
    repmlpnet, resmlp = runs["repmlpnet_t224"], runs["resmlp_s12"]
    every = [word for run in runs.values() for word in ("--weights", run)]
    return {
        "locality": ["locality", "--weights", repmlpnet, "--layer", _LARGEST_GRID],
        "rows": ["rows", "--weights", resmlp],
        "sparsity": ["sparsity", "--weights", resmlp, "--weights", repmlpnet],
        "saliency": ["saliency", *every, *images, "--method", "integrated"],
        "features": ["features", *every, images[0]],
        "costs": ["costs"],
        "curves": ["run", *runs.values()],
    }


def write_digits(folder: Path) -> list[Path]:
    """Write a few validation images as PNGs, a folder per class; return their paths."""
    import numpy as np
    from PIL import Image

    from kmlp.data.sources import digits

    split = digits().validation
    paths = []
    for digit in SHOWN_DIGITS:
        (index, *_) = np.flatnonzero(np.asarray(split.labels) == digit)
        path = folder / str(digit) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(split.store.images[index])).save(path)
        paths.append(path)
    return paths


def _call(arguments):
    arguments = [str(argument) for argument in arguments]
    print(f"$ python {shlex.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT).returncode
    if code:
        kind = InputError if code == 2 else RunError
        raise kind(
            "This command failed, and the gallery is not whole. "
            f"Received: exit code {code} of python {shlex.join(arguments)}",
        )
