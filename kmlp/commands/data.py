"""`kmlp data check`: look at a data set before anything is trained on it."""

from pathlib import Path

from kmlp.commands.arguments import Parser, add_exif, check_file, write_json
from kmlp.console import import_quietly
from kmlp.errors import InputError, RunError


def add_arguments(parser: Parser) -> None:
    """Add the parser of the job."""
    jobs = parser.add_subparsers(dest="data_job", required=True, parser_class=Parser)
    checking = jobs.add_parser(
        "check",
        help="look at every image once",
        description="Counts images and objects by class and split, and says what is "
        "ignored, cannot be read, lies in both splits or looks wrong. Ends with exit "
        "code 1 where training would stop.",
    )
    add = checking.add_argument
    add(
        "data",
        metavar="DATA",
        help="what --data takes: a folder, digits, tfds:NAME, scenes, coco:DIR, "
        "ade20k:DIR, cityscapes:DIR",
    )
    add("--data-dir", type=Path, metavar="FOLDER", help="where tfds: sets lie")
    add("--json", type=Path, metavar="FILE", help="write the result there too")
    add_exif(checking)
    checking.set_defaults(job=_check)


def _check(options):
    check_file(options.json, "--json")
    import_quietly()
    from kmlp.data.checking import check_data

    try:
        found = check_data(options.data, data_dir=options.data_dir, exif=options.exif)
    except InputError as error:
        write_json(options.json, {"data": options.data, "stops": [str(error)]})
        raise RunError(f"Training would stop: {error}") from error
    print(found.in_words())
    write_json(options.json, found.as_json())
    if found.stops:
        raise RunError(
            "Training would stop at these data; the lines above say why. "
            f"Received: {options.data!r}"
        )
