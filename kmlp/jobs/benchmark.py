"""`kmlp benchmark`: images per second of train form and merged form."""

import json

from kmlp.jobs.naming import add_architecture, model_arguments


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser(
        "benchmark", help="images per second of train form and merged form"
    )
    command.add_argument("name", help="see `kmlp list`")
    add_architecture(command)
    command.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    command.add_argument("--rounds", type=int, default=10)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--json", metavar="FILE", help="the figures as JSON too")
    command.set_defaults(job=run)


def run(options):
    """Measures and prints."""
    from kmlp import benchmarking

    benchmarking.use_threads(options.threads)
    timings = benchmarking.benchmark(
        options.name,
        batches=options.batch,
        rounds=options.rounds,
        threads=options.threads,
        **model_arguments(options),
    )
    print(benchmarking.table(timings))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([vars(timing) for timing in timings], file, indent=1)
