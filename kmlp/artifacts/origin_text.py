"""Put an artifact's origin into words."""

import collections
from pathlib import Path
from typing import Any

from kmlp.analysis.efficiency import efficiency
from kmlp.artifacts.operation_audit import verdicts
from kmlp.artifacts.origin import DIGEST, files_of
from kmlp.console import printable
from kmlp.typing import PathLike

_NAMED = 5  # class names that are shown


def describe(path: PathLike, form: str, origin: dict[str, Any] | None) -> str:
    """Return lines for a person: what an artifact is and where it comes from.

    Args:
        path: Path of the artifact.
        form: Form as `kmlp.artifacts.locating.locate` tells it.
        origin: Origin as `kmlp.artifacts.origin.read` gives it; `None`: unknown.
    """
    rows = [("", f"{form} {path}, {_size(Path(path)) / 1e6:.1f} MB")]
    if origin is None:
        said = "unknown: of another program, or of an earlier version of kmlp"
        rows.append(("origin", said))
    else:
        for title, cell in _ROWS:
            rows += [(title, text) for text in [cell(origin)] if text]
    width = max(len(title) for title, _ in rows) + 2
    rows = [(title, printable(str(text))) for title, text in rows]
    lines = (f"{title:<{width}}{text}" if title else text for title, text in rows)
    return "\n".join(lines)


def _size(path):
    """Return the bytes of a file, or of what a server loads of a folder."""
    files = files_of(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _architecture(origin):
    parameters, macs = origin.get("parameters") or {}, origin.get("multiply_adds")
    return (
        f"{origin.get('architecture')}, {origin.get('form')}; as trained: "
        f"{parameters.get('trainable') or 0:,} trainable and "
        f"{parameters.get('non_trainable') or 0:,} non-trainable parameters"
        + (f", {macs / 1e6:,.1f} M multiply-adds" if macs else "")
    )


def _configuration(origin):
    hidden = ("name", "trainable", "dtype")
    entries = (origin.get("configuration") or {}).items()
    return ", ".join(f"{k}={_setting(v)}" for k, v in entries if k not in hidden)


def _setting(value):
    """Return a backbone's class and name, anything else as it is."""
    if isinstance(value, dict) and "class_name" in value:
        config = value.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        return f"{value['class_name']}({name})"
    return value


def _weights(origin):
    digest = origin.get("weights_sha256")
    return digest and f"sha256 {digest}"


def _source(origin):
    entries = origin.get("source") or {}
    names = ("name", "file", "address", "licence")
    return ", ".join(str(entries[n]) for n in names if entries.get(n))


def _begun(origin):
    entries, frozen = origin.get("initial_weights"), origin.get("frozen")
    kept = f"; kept as they were: {', '.join(frozen)}" if frozen else ""
    names = ("name", "sha256")
    return entries and "{}, sha256 {}".format(*map(entries.get, names)) + kept


def _images(origin):
    p = origin.get("preprocessing") or {}
    if p.get("task"):
        return _pictures(p)
    if not p.get("image_size"):
        return None
    share = f", {p['test_crop']:g} of the shorter side" if p.get("test_crop") else ""
    size = f"{p['image_size']}x{p['image_size']}{share}"
    return f"{size}, {p.get('test_interpolation')}, {_statistics(p)}"


def _pictures(p):
    """Describe those of a detector or segmenter."""
    parts = [f"{p['task']}, canvas {_sides(p['canvas'])}"]
    if p.get("short_side"):
        longest = f", long side at most {p['long_side']}" if p.get("long_side") else ""
        parts.append(f"short side {p['short_side']}{longest}")
    if p.get("resize_to"):
        parts.append(f"within {_sides(p['resize_to'])}")
    if p["task"] == "segmentation":
        parts.append(f"validated {p['mode']} {_sides(p.get('window') or ())}".rstrip())
    return ", ".join([*parts, _statistics(p)])


def _sides(values):
    return "x".join(map(str, values))


def _statistics(p):
    mean, std = (
        "unknown" if values is None else " ".join(f"{v:g}" for v in values)
        for values in (p.get("mean"), p.get("std"))
    )
    return f"mean {mean}, std {std}"


def _classes(origin):
    names = origin.get("class_names") or ()
    more = ", …" if len(names) > _NAMED else ""
    return names and f"{len(names):,}: {', '.join(names[:_NAMED])}{more}"


def _entries(name):
    """Return a function to all that an entry knows."""

    def cell(origin: dict[str, Any]) -> str:
        known = (origin.get(name) or {}).items()
        return ", ".join(
            f"{n.replace('_', ' ')} {f'{v:.2g}' if isinstance(v, float) else v}"
            for n, v in known
            if v is not None or name == "artifact"
        )

    return cell


def _accuracies(origin):
    entries = origin.get("accuracies") or {}
    if entries.get("top1") is None:
        return None
    others = [
        f"{name.removesuffix('_top1')} {value:.2%}"
        for name, value in entries.items()
        if name.endswith("_top1") and value is not None
    ]
    compared = f" ({', '.join(others)})" if others else ""
    return f"{entries['top1']:.2%}{_of_images(entries)}{compared}"


def _of_images(entries):
    count = entries.get("images")
    return "" if count is None else f" of {count:,} images"


def _efficiency(origin):
    """Put the cost as ConvMLP's Table 3 does."""
    top1 = (origin.get("accuracies") or {}).get("top1")
    macs = origin.get("multiply_adds")
    parameters = (origin.get("parameters") or {}).get("trainable")
    if not (top1 and macs and parameters):
        return None
    found = efficiency(100 * top1, macs, parameters)
    return (
        f"{found.per_gmac:,.1f} points per G multiply-adds, "
        f"{found.per_mparam:,.2f} per M parameters"
    )


def _figures(origin):
    """Describe those of a detector or segmenter."""
    entries = origin.get("accuracies") or {}
    names = ("AP", "mask_AP", "mIoU", "accuracy")
    known = [name for name in names if entries.get(name) is not None]
    if not known or "top1" in entries:
        return None
    said = ", ".join(f"{name.replace('_', ' ')} {entries[name]:.2%}" for name in known)
    return said + _of_images(entries)


def _operations(origin):
    entries = origin.get("audit")
    if not entries:
        return None
    counts = (entries.get("operations") or {}).items()
    return f"{verdicts(entries)}: " + ", ".join(f"{k} {v}" for k, v in counts)


def dense(origin: dict[str, Any]) -> str | None:
    """Describe what stands in the place of convolutions, and its cost, if it is known.

    Args:
        origin: Origin of an artifact.
    """
    entry = origin.get("dense")
    if not entry:
        return None
    forms = collections.Counter((entry.get("layers") or {}).values()).items()
    said = ", ".join(f"{form} {count}" for form, count in forms) or "nothing cheaper"
    costs = [
        f"{name.replace('_', ' ')} {' -> '.join(f'{v:,}' for v in entry[name])}"
        for name in ("multiply_adds", "parameters", "bytes")
        if entry.get(name)
    ]
    return f"{entry.get('choice')}: {said}; {', '.join(costs)}"


_ROWS = (
    ("architecture", _architecture),
    ("configuration", _configuration),
    ("weights", _weights),
    ("loaded from", _source),
    ("started from", _begun),
    ("images", _images),
    ("classes", _classes),
    ("artifact", _entries("artifact")),
    ("equality", _entries("equality")),
    ("top-1", _accuracies),
    ("for its cost", _efficiency),
    ("figures", _figures),
    ("dense", dense),
    ("operations", _operations),
    ("created", lambda origin: origin.get("created")),
    ("digest", lambda o: o.get(DIGEST) and f"sha256 {o[DIGEST]}, see `kmlp verify`"),
    ("versions", _entries("versions")),
)
