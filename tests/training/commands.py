"""A training command as a person runs it."""

import re


def run_main(main, capfd, *arguments):
    """`(exit code, standard output, the job's lines on standard error)`."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        code = stopped.code
    output, error = capfd.readouterr()
    # TensorFlow was imported before the job could quieten it.
    lines = [line for line in error.splitlines() if not re.match(r"[IWE]\d{4} ", line)]
    return code, output, "\n".join(lines).strip()
