"""What a conversion found and did, for a person and as data."""

import dataclasses
from pathlib import Path

from kmlp.analysis.complexity import count_parameters
from kmlp.artifacts.source_network import IMAGES, TOLERANCE, Comparison
from kmlp.weights.matching import Match
from kmlp.weights.recognition import Recognised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """A conversion.

    Attributes:
        target: path of the file that was written.
        size: of the source in bytes.
        model: with its weights, preprocessing and source.
        seems: what the state was recognised as.
        fit: which array went where.
        unpromised: names of a head that its authors do not offer.
        own_classes: of the source's classifier, 0 without one.
        comparison: with the source network, or `None`.
    """

    target: Path
    size: int
    model: object
    seems: Recognised
    fit: Match
    unpromised: list
    own_classes: int
    comparison: Comparison | None

    def as_data(self):
        """What `--json` writes."""
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

    def __str__(self):
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
        rows.append(("written", f"{self.target}, {_megabytes(self.target)}"))
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


def _megabytes(path):
    return f"{path.stat().st_size / 1e6:.1f} MB"
