"""An artifact's origin in words."""

from pathlib import Path

from kmlp.analysis.efficiency import efficiency
from kmlp.artifacts.origin import FOLDER

_NAMED = 5  # class names that are shown


def describe(path, form, origin):
    """Lines for a person: what an artifact is and where it comes from.

    Args:
        path: of the artifact.
        form: as `kmlp.artifacts.locating.locate` tells it.
        origin: as `kmlp.artifacts.origin.read` gives it; `None`: unknown.
    """
    rows = [("", f"{form} {path}, {_size(Path(path)) / 1e6:.1f} MB")]
    if origin is None:
        rows.append(
            ("origin", "unknown: of another program, or of an earlier version of kmlp")
        )
    else:
        for title, cell in _ROWS:
            rows += [(title, text) for text in [cell(origin)] if text]
    width = max(len(title) for title, _ in rows) + 2
    lines = (f"{title:<{width}}{text}" if title else text for title, text in rows)
    return "\n".join(lines)


def _size(path):
    """Bytes of a file, or of what a server loads of a folder."""
    files = [path]
    if path.is_dir():
        loaded = ("variables", "assets", FOLDER)
        files = [path / "saved_model.pb", path / "fingerprint.pb"]
        files += [file for name in loaded for file in (path / name).rglob("*")]
    return sum(file.stat().st_size for file in files if file.is_file())


def _architecture(origin):
    parameters = origin.get("parameters", {})
    macs = origin.get("multiply_adds")
    return (
        f"{origin.get('architecture')}, {origin.get('form')}; as trained: "
        f"{parameters.get('trainable', 0):,} trainable and "
        f"{parameters.get('non_trainable', 0):,} non-trainable parameters"
        + (f", {macs / 1e6:,.1f} M multiply-adds" if macs else "")
    )


def _configuration(origin):
    entries = origin.get("configuration") or {}
    hidden = ("name", "trainable", "dtype")
    return ", ".join(
        f"{k}={_setting(v)}" for k, v in entries.items() if k not in hidden
    )


def _setting(value):
    """A backbone by its class and name, anything else as it is."""
    if isinstance(value, dict) and "class_name" in value:
        name = (value.get("config") or {}).get("name")
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
    entries = origin.get("initial_weights")
    if not entries:
        return None
    frozen = origin.get("frozen") or ()
    kept = f"; kept as they were: {', '.join(frozen)}" if frozen else ""
    return f"{entries['name']}, sha256 {entries['sha256']}{kept}"


def _images(origin):
    p = origin.get("preprocessing")
    if p and p.get("task"):
        return _pictures(p)
    if not p or not p.get("image_size"):
        return None
    share = f", {p['test_crop']:g} of the shorter side" if p.get("test_crop") else ""
    return (
        f"{p['image_size']}x{p['image_size']}{share}, {p.get('test_interpolation')}, "
        f"mean {_numbers(p.get('mean'))}, std {_numbers(p.get('std'))}"
    )


def _pictures(p):
    """Of a detector or segmenter."""
    canvas = "x".join(map(str, p["canvas"]))
    parts = [f"{p['task']}, canvas {canvas}"]
    if p.get("short_side"):
        longest = f", long side at most {p['long_side']}" if p.get("long_side") else ""
        parts.append(f"short side {p['short_side']}{longest}")
    if p.get("resize_to"):
        parts.append(f"within {'x'.join(map(str, p['resize_to']))}")
    if p["task"] == "segmentation":
        window = "x".join(map(str, p.get("window") or ()))
        parts.append(" ".join(filter(None, ["validated", p["mode"], window])))
    parts.append(f"mean {_numbers(p.get('mean'))}, std {_numbers(p.get('std'))}")
    return ", ".join(parts)


def _numbers(values):
    return "unknown" if values is None else " ".join(f"{v:g}" for v in values)


def _classes(origin):
    names = origin.get("class_names")
    if not names:
        return None
    more = ", …" if len(names) > _NAMED else ""
    return f"{len(names):,}: {', '.join(names[:_NAMED])}{more}"


def _made_as(origin):
    entries = origin.get("artifact") or {}
    return ", ".join(f"{n.replace('_', ' ')} {v}" for n, v in entries.items())


def _equality(origin):
    entries = origin.get("equality") or {}
    known = {name: value for name, value in entries.items() if value is not None}
    return ", ".join(f"{n.replace('_', ' ')} {_value(v)}" for n, v in known.items())


def _value(value):
    return f"{value:.2g}" if isinstance(value, float) else value


def _accuracies(origin):
    entries = origin.get("accuracies") or {}
    if "top1" not in entries:
        return None
    others = [
        f"{name.removesuffix('_top1')} {value:.2%}"
        for name, value in entries.items()
        if name.endswith("_top1")
    ]
    compared = f" ({', '.join(others)})" if others else ""
    return f"{entries['top1']:.2%} of {entries['images']:,} images{compared}"


def _efficiency(origin):
    """As ConvMLP's Table 3 puts it."""
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
    """Of a detector or segmenter."""
    entries = origin.get("accuracies") or {}
    known = [name for name in ("AP", "mask_AP", "mIoU", "accuracy") if name in entries]
    if not known or "top1" in entries:
        return None
    said = ", ".join(f"{name.replace('_', ' ')} {entries[name]:.2%}" for name in known)
    images = f" of {entries['images']:,} images" if "images" in entries else ""
    return said + images


def _operations(origin):
    entries = origin.get("audit") or {}
    if not entries:
        return None
    only = "" if entries.get("fully_connected_only") else "not "
    counts = (entries.get("operations") or {}).items()
    return f"{only}fully connected only: " + ", ".join(f"{k} {v}" for k, v in counts)


def _versions(origin):
    entries = origin.get("versions") or {}
    return ", ".join(f"{name} {value}" for name, value in entries.items())


_ROWS = (
    ("architecture", _architecture),
    ("configuration", _configuration),
    ("weights", _weights),
    ("loaded from", _source),
    ("started from", _begun),
    ("images", _images),
    ("classes", _classes),
    ("artifact", _made_as),
    ("equality", _equality),
    ("top-1", _accuracies),
    ("for its cost", _efficiency),
    ("figures", _figures),
    ("operations", _operations),
    ("created", lambda origin: origin.get("created")),
    ("versions", _versions),
)
