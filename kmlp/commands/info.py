"""`kmlp info`: costs of an architecture or origin of an artifact; `audit`, `verify`."""

import json
import os
from pathlib import Path

from kmlp.commands.arguments import (
    Parser,
    add_architecture,
    add_format,
    model_arguments,
    positive,
)
from kmlp.console import first_line, quiet, table
from kmlp.errors import InputError, KmlpError

TRAIN, MERGED = "train form", "merged"

# Title, decimals or None for whole numbers, value of a `Profile`.
_SUMS = (
    ("trainable parameters", None, lambda p: p.trainable),
    ("non-trainable parameters", None, lambda p: p.non_trainable),
    ("multiply-adds (G)", 3, lambda p: p.macs / 1e9),
    ("activations (M)", 3, lambda p: p.activations / 1e6),
    ("weights (MB)", 2, lambda p: p.weight_bytes / 1e6),
    ("activation memory at its peak (MB)", 2, lambda p: p.peak_activation_bytes / 1e6),
    ("weights and activations at once (MB)", 2, lambda p: p.peak_memory / 1e6),
)
# The same of a row by stage or layer.
_COLUMNS = (
    ("parameters", None, lambda r: r.trainable + r.non_trainable),
    ("multiply-adds (M)", 2, lambda r: r.macs / 1e6),
    ("activations (M)", 3, lambda r: r.activations / 1e6),
    ("memory (MB)", 2, lambda r: r.memory / 1e6),
)
# Column of the CSV -> attribute of a row by stage or layer.
_RAW = {
    "trainable": "trainable",
    "non_trainable": "non_trainable",
    "multiply_adds": "macs",
    "activations": "activations",
    "activation_bytes": "memory",
}


def _count(name, arguments, batch, merged_only):
    """Count an architecture's forms, with memory for a batch of images.

    Args:
        name: Name of an architecture or ablation.
        arguments: Arguments of `kmlp.create_model`.
        batch: Images that memory is counted for.
        merged_only: Whether the train form is left out.

    Returns:
        The image size as text, and `{form: Profile}`.

    Raises:
        InputError: If there is no such name, or the family takes no such argument.
    """
    from kmlp.analysis.complexity import profile, shapes_only
    from kmlp.merging import merge
    from kmlp.models.registry import check_options, variant
    from kmlp.pretrained.creation import create_model

    check_options(variant(name)[0], arguments)
    with shapes_only():
        try:
            model = create_model(name, **arguments)
        except TypeError as error:
            raise InputError(
                f"{first_line(error)}: an option has a value of another kind than it "
                f"takes. Received: {arguments}"
            ) from error
        forms = {} if merged_only else {TRAIN: profile(model, batch=batch)}
        forms[MERGED] = profile(merge(model), batch=batch)
    return "x".join(map(str, model.inputs[0].shape[1:3])), forms


def _totals(forms, form):
    """Return a table of what each of `{form: Profile}` needs in all."""
    rows = [
        (title, *(_number(value(p), digits) for p in forms.values()))
        for title, digits, value in _SUMS
    ]
    return table(("", *forms), rows, form)


def _parts(forms, layers, form):
    """Return a table by stage or by layer, the forms beside one another.

    Args:
        forms: Profiles as `{form: Profile}`.
        layers: Whether to have a row per layer, except for layers that hold and compute
            nothing, instead of one per stage.
        form: Form of the table, `"text"` or `"markdown"`.
    """
    found = [_by_name(p.layers if layers else p.stages) for p in forms.values()]
    header = ["layer", "kind", "output"] if layers else ["stage", "output"]
    left = len(header)
    for title, _, _ in _COLUMNS:
        header += [title, *(f"…{other}" for other in list(forms)[1:])]
    cells = []
    for name in dict.fromkeys(name for rows in found for name in rows):
        rows = [rows.get(name) for rows in found]
        known = [row for row in rows if row is not None]
        if layers and not any(r.trainable or r.non_trainable or r.macs for r in known):
            continue
        kinds = [" -> ".join(dict.fromkeys(r.kind for r in known))] if layers else []
        cells.append([name[0], *kinds, _size(known[0]), *_cells(rows)])
    sums = _cells([_total(p) for p in forms.values()])
    cells.append(["total", *[""] * (left - 1), *sums])
    return table(header, cells, form, left)


def _raw(forms, layers):
    """Return CSV with a row per form and stage or layer, and one per form in all."""
    rows = []
    for form, p in forms.items():
        total = _total(p)
        for row in (*(p.layers if layers else p.stages), total):
            kind = getattr(row, "kind", None)  # of layers alone
            numbers = (getattr(row, name) for name in _RAW.values())
            weights = p.weight_bytes if row is total else None
            rows.append((form, row.name, kind, _size(row), *numbers, weights))
    header = ("form", "row", "kind", "output", *_RAW, "weight_bytes")
    return table(header, rows, "csv")


def _total(p):
    """Return a `Profile` as a row of its table."""
    from kmlp.analysis.complexity import StageProfile

    counts = (p.trainable, p.non_trainable, p.macs, p.activations)
    return StageProfile("total", (), *counts, p.peak_activation_bytes)


def _by_name(rows):
    """Return `{(name, how often it came before): row}`."""
    found, times = {}, {}
    for row in rows:
        times[row.name] = times.get(row.name, -1) + 1
        found[row.name, times[row.name]] = row
    return found


def _cells(rows):
    for _, digits, value in _COLUMNS:
        yield from ("" if r is None else _number(value(r), digits) for r in rows)


def _number(value, digits):
    return f"{value:,}" if digits is None else f"{value:,.{digits}f}"


def _size(row):
    return "x".join(map(str, row.output_shape[1:]))


_OF_ARCHITECTURES = "num_classes image_size set merged layers batch precision format"


def add_arguments(parser: Parser) -> None:
    """Add the arguments of `kmlp info` and the job."""
    parser.description = (
        "Describes an architecture: parameters, multiply-adds, activations (outputs of "
        "matrix products and convolutions for one image) and memory in inference, of "
        "the train form and the merged form, in all and by stage. Or says where a file "
        "or folder comes from."
    )
    add = parser.add_argument
    add(
        "name",
        metavar="NAME|FILE",
        help="see `kmlp list` and `kmlp list --ablations`; or a .keras, "
        ".tflite or .onnx file, or a folder",
    )
    add_architecture(parser)
    add("--merged", action="store_true", help="the inference form alone")
    add("--layers", action="store_true", help="a row per layer instead of per stage")
    add(
        "--batch",
        type=positive,
        metavar="N",
        help="images that memory is counted for (default: 1)",
    )
    add(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        help="of weights and activations (default: float32)",
    )
    add_format(parser, default=None)
    add("--json", action="store_true", help="all that a file says of its origin")
    parser.set_defaults(job=_run)


def add_audit(parser: Parser) -> None:
    """Add the arguments of `kmlp audit` and the job."""
    parser.add_argument(
        "path", help="folder of a SavedModel or OpenVINO model, .tflite or .onnx file"
    )
    parser.set_defaults(job=_audit)


def add_verify(parser: Parser) -> None:
    """Add the arguments of `kmlp verify` and the job."""
    parser.description = (
        "Compares an artifact's content with the digest that was written into it: "
        "every byte of a .keras checkpoint, a SavedModel, a TFLite file, …, in a run's "
        "folder all of them. Published files are compared with the catalogue's hash."
    )
    parser.add_argument(
        "path",
        metavar="FILE|FOLDER|NAME",
        help="an artifact, a run's folder, a published file, or a name of `kmlp list "
        "--weights` that was fetched",
    )
    parser.set_defaults(job=_verify)


def _verify(options):
    """Print a line for each artifact.

    Raises:
        RunError: If one is not what was written; the others are compared all the same.
    """
    with quiet():  # Keras loads its backend
        from kmlp.artifacts import origin
        from kmlp.artifacts.locating import artifacts_of, is_artifact
        from kmlp.pretrained import found
        from kmlp.weights.catalogue import WEIGHTS
        from kmlp.weights.downloads import cache_path

    path = Path(options.path).expanduser()
    if not path.exists() and options.path in WEIGHTS:
        path = cache_path(WEIGHTS[options.path])
    if path.is_file() and not is_artifact(path):
        entry = found.verify(path)
        print(f"{path}: {entry.name} as published, sha256 {entry.sha256}")
        return
    failed: list[KmlpError] = []
    for artifact in artifacts_of(path):
        try:
            print(f"{artifact}: as it was written, sha256 {origin.verify(artifact)}")
        except KmlpError as error:
            failed.append(error)
    if failed:
        # One that was changed weighs more than one that cannot tell.
        raise min(failed, key=lambda one: isinstance(one, InputError))


def _audit(options):
    from kmlp.artifacts.operation_audit import audit

    print(audit(options.path))


def _run(options):
    if _is_path(options.name):
        _artifact(options)
    else:
        _architecture(options)


def _is_path(name):
    if os.path.exists(name) or name.endswith((".keras", ".tflite", ".onnx")):
        return True
    if "/" not in name:
        return os.sep in name
    from kmlp.models.papers import PAPERS

    # Rows of the papers' tables have slashes in their names, too.
    return name.partition("/")[0] not in PAPERS


def _architecture(options):
    if options.json:
        raise InputError(
            "--json goes with a file, whose origin it prints. "
            f"Received: the architecture {options.name!r}"
        )
    arguments = {**model_arguments(options), **dict(options.set)}
    if options.precision:
        arguments["dtype"] = options.precision
    batch = options.batch or 1
    with quiet():  # the backend looks for devices
        size, forms = _count(options.name, arguments, batch, options.merged)
    if options.format == "csv":
        print(_raw(forms, options.layers))
        return
    form = options.format or "text"
    images = f"memory for {batch} image{'s' * (batch > 1)}"
    print(f"{options.name} at {size}, {options.precision or 'float32'}, {images}\n")
    print(_totals(forms, form))
    print()
    print(_parts(forms, options.layers, form))


def _artifact(options):
    from kmlp.artifacts import origin
    from kmlp.artifacts.locating import KERAS, locate
    from kmlp.artifacts.origin_text import describe

    given = [name for name in _OF_ARCHITECTURES.split() if getattr(options, name)]
    if given:
        raise InputError(
            f"--{given[0].replace('_', '-')} goes with the name of an architecture. "
            f"Received: the artifact {options.name!r}"
        )
    path, form = locate(options.name)
    found = origin.read(path)
    if found is None and form == KERAS:
        found = _opened(path)
    if options.json:
        if found is None:
            raise InputError(
                "This artifact says nothing of its origin: it is of another program "
                f"or an earlier version. Received: {str(path)!r}"
            )
        print(json.dumps(found, indent=2))
        return
    print(describe(path, form, found))


def _opened(path):
    """Describe a checkpoint without an origin by opening it."""
    from kmlp.artifacts import origin
    from kmlp.preprocessing import preprocessing_of
    from kmlp.pretrained.restoring import load_checkpoint

    model = load_checkpoint(path)
    found = origin.describe(
        model, form=origin.TRAIN_FORM, preprocessing=preprocessing_of(path)
    )
    return found | origin.of_keras(path)
