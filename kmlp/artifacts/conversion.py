"""Convert a published checkpoint to a `.keras` file, and say what was found."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kmlp import pytorch
from kmlp.analysis.complexity import count_parameters
from kmlp.artifacts import origin
from kmlp.artifacts.agreement import TOLERANCE
from kmlp.artifacts.source_network import IMAGES, Comparison, compare
from kmlp.atomic import new_file
from kmlp.budget import Budget
from kmlp.console import first_line, quiet, some
from kmlp.errors import InputError, KmlpError, RunError
from kmlp.keras_internals import weights_within
from kmlp.models.registry import VARIANTS, check_options, create_model, variant
from kmlp.pretrained import found as published
from kmlp.pretrained.found import find
from kmlp.typing import PathLike
from kmlp.weights.catalogue import WEIGHTS
from kmlp.weights.checkpoint_forms import read_checkpoint
from kmlp.weights.recognition import Recognised, as_options, recognise
from kmlp.weights.strict_loading import Match, match, misfit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """The findings and actions of a conversion, for a person by `str` and as data.

    Attributes:
        target: Path of the file that was written.
        size: Size of the source in bytes.
        model: Model with its weights, preprocessing and source.
        seems: What the state was recognised as.
        fit: Which array went where.
        unpromised: Names of a head that its authors do not offer.
        own_classes: Classes of the source's classifier, 0 without one.
        comparison: Comparison with the source network, or `None`.
    """

    target: Path
    size: int
    model: keras.Model
    seems: Recognised
    fit: Match
    unpromised: list[str]
    own_classes: int
    comparison: Comparison | None

    def as_data(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        model, source = self.model, self.model.weights_source
        preprocessing = model.preprocessing
        shape = model.inputs[0].shape[1:]
        return {
            "source": {**source, "bytes": self.size},
            "architecture": self.seems.architecture,
            "configuration": model.get_config(),
            "input_shape": list(shape),
            "arrays": {
                "used": len(self.fit.fitting),
                "ignored": self.fit.ignored,
                "left_out": [*self.fit.left_out, *self.unpromised],
            },
            "classifier": {"source": self.own_classes, "new": bool(self.fit.fresh)},
            "parameters": {
                "trainable": count_parameters(model.trainable_weights),
                "non_trainable": count_parameters(model.non_trainable_weights),
            },
            "preprocessing": preprocessing and preprocessing.as_json(),
            "check": self.comparison and self.comparison._asdict(),
            "target": str(self.target),
        }

    def __str__(self) -> str:
        rows = [
            ("source", self._source()),
            ("network", self._network()),
            ("arrays", self._arrays()),
            ("classifier", self._classifier()),
            ("parameters", self._parameters()),
            ("images", self._images()),
        ]
        if self.comparison is not None:
            rows.append(("check", self._check()))
        megabytes = self.target.stat().st_size / 1e6
        rows.append(("written", f"{self.target}, {megabytes:.1f} MB"))
        width = max(len(title) for title, _ in rows)
        return "\n".join(f"{title:<{width}}  {text}" for title, text in rows)

    def _source(self):
        source = self.model.weights_source
        state = f", key {source['key']!r}" if source["key"] else ""
        return (
            f"{source.get('name') or source['file']}: {source['form']}{state}, "
            f"{self.size / 1e6:.1f} MB, sha256 {source['sha256']}"
        )

    def _network(self):
        height, width = self.model.inputs[0].shape[1:3]
        size = "images of any size" if height is None else f"at {height}x{width}"
        injected = getattr(self.model, "locality_injected", False)
        form = ", after Locality Injection" if injected else ""
        return f"{self.seems} {size}{form}"

    def _arrays(self):
        parts = [f"{len(self.fit.fitting)} used, each once"]
        if self.fit.ignored:
            leaves = sorted({name.rsplit(".", 1)[-1] for name in self.fit.ignored})
            parts.append(
                f"{len(self.fit.ignored)} ignored that nothing learned "
                f"({', '.join(leaves)})"
            )
        if left_out := [*self.fit.left_out, *self.unpromised]:
            parts.append(f"left out: {', '.join(left_out)}")
        return "; ".join(parts)

    def _classifier(self):
        theirs = f"{self.own_classes:,} classes" if self.own_classes else "none"
        if self.fit.fresh:
            own = f"{self.model.num_classes:,} classes"
            return f"new, for {own} (the source's: {theirs})"
        if not self.model.include_top or not self.model.num_classes:
            return f"none: the output is features (the source's: {theirs})"
        return f"the source's, {theirs}"

    def _parameters(self):
        counted = self.as_data()["parameters"]
        return (
            f"{counted['trainable']:,} trainable, "
            f"{counted['non_trainable']:,} non-trainable"
        )

    def _images(self):
        p = self.model.preprocessing
        if p is None:
            return (
                "unknown how they are prepared: the file does not tell, and it is none "
                "of `kmlp list --weights`"
            )
        mean, std = (", ".join(f"{v:g}" for v in values) for values in (p.mean, p.std))
        names = f"; {len(p.class_names):,} class names" if p.class_names else ""
        return (
            f"{p.image_size}x{p.image_size}, crop {p.test_crop:g}, "
            f"{p.test_interpolation}, mean {mean}, deviation {std}{names}"
        )

    def _check(self):
        difference, network = self.comparison
        return (
            f"differs by {difference:.1e} relative from {network} network in PyTorch, "
            f"on {IMAGES} random images ({TOLERANCE:.0e} allowed)"
        )


SUFFIX = ".keras"


def convert(
    source: PathLike,
    target: PathLike,
    *,
    arch: str | None = None,
    num_classes: int | None = None,
    key: str | None = None,
    settings: dict[str, Any] | None = None,
    check: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write a published checkpoint as a `.keras` file.

    Args:
        source: Path of a file, or a name of `kmlp.list_weights()`.
        target: Path of the `.keras` file.
        arch: Name of the architecture; `None`: what names and shapes tell.
        num_classes: Classes of the head; `None`: the file's own. Another number makes
            a new classifier, 0 none.
        key: Which of several states of the file.
        settings: Further arguments of the family's class.
        check: Whether to compare outputs with the source network in PyTorch.
        overwrite: Whether `target` may be there.

    Raises:
        InputError: If something of these cannot be worked with.
        RunError: If the networks give other outputs.
        OSError: If a file cannot be read or written.
        ImportError: If a package is missing. Nothing is written then.
    """
    target = Path(target).expanduser()
    settings = settings or {}
    _check_target(target, overwrite)
    _check_source(source, arch)
    if check and not pytorch.installed():
        raise InputError(
            "--check runs the source network, which needs PyTorch: pip install torch. "
            "Received: --check"
        )
    if "num_classes" in settings:
        raise InputError(
            "Classes are set by --num-classes. Received: --set num_classes"
        )
    found = find(arch, source)
    checkpoint = read_checkpoint(found.path, key)
    with quiet():  # the backend looks for devices, and Keras for TensorFlow
        result = _loaded(found, checkpoint, num_classes, settings, target, check)
        with new_file(target) as draft:
            origin.save_checkpoint(result.model, draft)
    return result


def _loaded(found, checkpoint, num_classes, settings, target, check):
    """Return the conversion, its networks compared where asked."""
    state = published.promised(checkpoint.state, found.entry)
    seems = recognise(state)
    own_classes = seems.arguments["num_classes"]
    classes = own_classes if num_classes is None else num_classes
    limit = weights_within(Budget(found.path), len(state))
    options = settings | {"num_classes": classes}
    model = _model(found.architecture, seems, options, limit)
    fit = match(model, state, new_head=classes not in (0, own_classes))
    if not fit.is_complete:
        raise InputError(misfit(model, state, fit, found.path))
    _check_numbers(fit, found.path)
    fit.assign()
    model.preprocessing = published.preprocessing(found.entry, model, own_classes)
    model.weights_source = {
        **published.source(found),
        "form": checkpoint.form,
        "key": checkpoint.key or None,
        "names": fit.scheme.name,
    }
    comparison = compare(model, state, fit.scheme) if check else None
    if check and not comparison.difference <= TOLERANCE:
        raise RunError(
            "The converted network does not give the source network's outputs: they "
            f"differ by {comparison.difference:.1e} relative, and {TOLERANCE:.0e} are "
            f"allowed; nothing was written. Received: {found.path}",
        )
    return Conversion(
        target=target,
        size=os.path.getsize(found.path),
        model=model,
        seems=seems,
        fit=fit,
        unpromised=sorted(checkpoint.state.keys() - state.keys()),
        own_classes=own_classes,
        comparison=comparison,
    )


def _model(name, seems, arguments, limit):
    """Return the model with fresh weights; a wrong name shows when it is loaded.

    What the file says is built within a limit, what the user says is not.
    """
    ours = name in (None, seems.architecture)
    check_options(seems.family if ours else variant(name)[0], arguments)
    try:
        if not ours:
            return create_model(name, **arguments)
        with limit:
            return seems.build(**arguments)
    except KmlpError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(
            f"With these options there is no such network ({first_line(error)}). "
            f"Received: {as_options(arguments)}"
        ) from error


def _check_source(source, arch):
    """Raise `InputError` where the source is no file and no name of the catalogue."""
    path = Path(source).expanduser()
    if path.is_dir():
        raise InputError(
            f"SOURCE is a file, and this is a folder: name a file. Received: {source!r}"
        )
    is_name = str(source).partition(".")[0] in VARIANTS or f"{arch}.{source}" in WEIGHTS
    if not (path.exists() or is_name):
        raise InputError(
            "SOURCE is the path of a file or a name of `kmlp list --weights`, and this "
            f"is neither. Received: {str(source)!r}"
        )


def _check_target(target, overwrite):
    """Raise `InputError` where the file could not be written at the end."""
    received = f"Received: {str(target)!r}"
    if target.suffix != SUFFIX:
        raise InputError(f"TARGET is the path of a {SUFFIX} file. {received}")
    if target.is_dir():
        raise InputError(f"TARGET is a folder; name a file in it. {received}")
    if target.exists() and not overwrite:
        raise InputError(f"TARGET is there: pass --overwrite to replace it. {received}")
    folder = next(folder for folder in target.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(
            "TARGET must lie in a folder that exists or can be made, with write "
            f"permission. {received}"
        )


def _check_numbers(fit, path):
    """Refuse weights that are not finite: the network would answer nothing."""
    spoilt = [n for n, (_, a) in fit.fitting.items() if not np.isfinite(a).all()]
    if spoilt:
        raise InputError(
            f"{len(spoilt)} arrays hold NaN or infinity ({some(spoilt)}): its training "
            f"had failed; take another checkpoint. Received: {path}"
        )
