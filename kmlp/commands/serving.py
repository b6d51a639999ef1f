"""`kmlp serving`: check an artifact as a server would, and ask a server."""

import sys
from pathlib import Path

from kmlp.commands.arguments import Parser, positive, rate
from kmlp.console import import_quietly
from kmlp.errors import InputError, RunError

SIGNATURES = ("classify", "serving_bytes")


def add_arguments(parser: Parser) -> None:
    """Add the parsers of the two jobs."""
    jobs = parser.add_subparsers(dest="serving", required=True, parser_class=Parser)
    checking = jobs.add_parser(
        "check", help="load, replay and ask an artifact as TensorFlow Serving would"
    )
    checking.add_argument("folder", type=Path, help="a SavedModel, or its versions")
    checking.set_defaults(job=_check)
    asking = jobs.add_parser("ask", help="classes of images, from a running server")
    asking.add_argument("images", nargs="+", metavar="IMAGE", type=Path)
    place = asking.add_mutually_exclusive_group(required=True)
    place.add_argument("--rest", metavar="URL", help="such as http://localhost:8501")
    place.add_argument("--grpc", metavar="HOST:PORT", help="such as localhost:8500")
    asking.add_argument("--model", required=True, metavar="NAME", help="at the server")
    asking.add_argument(
        "--signature", choices=SIGNATURES, default="classify", help="default: classify"
    )
    asking.add_argument(
        "--top", type=positive, default=5, metavar="K", help="classes each (default: 5)"
    )
    asking.add_argument(
        "--timeout", type=rate, default=60.0, metavar="SECONDS", help="default: 60"
    )
    asking.set_defaults(job=_ask)


def _check(options):
    import_quietly()
    from kmlp.serving.check import check, print_findings

    if not print_findings(check(options.folder)):
        raise RunError(
            "This artifact would not be served well; the lines above say why. "
            f"Received: {str(options.folder)!r}",
        )


def _ask(options):
    from kmlp.serving.client import Grpc, Rest, classes_and_scores

    if options.rest:
        client = Rest(options.rest, options.model, timeout=options.timeout)
    else:
        import_quietly()
        client = Grpc(options.grpc, options.model, timeout=options.timeout)
    images = {path: _read(path) for path in options.images}
    refused = 0
    for path, image in images.items():
        try:
            outputs = client.predict(image, options.signature)
        except LookupError as error:
            raise InputError(str(error)) from error
        except ValueError as error:
            refused += 1
            print(f"{path}: {error}", file=sys.stderr, flush=True)
            continue
        print(path)
        for name, score in classes_and_scores(outputs, options.top):
            print(f"  {score:8.4f}  {name}", flush=True)
    if refused:
        raise RunError(f"{refused} of {len(images)} images were refused.")


def _read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            "`kmlp serving ask` sends files, and this one cannot be read: correct the "
            f"path. Received: {str(path)!r} ({error.strerror})"
        ) from error
