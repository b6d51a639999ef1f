"""`kmlp audit`: the operations of an artifact."""


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("audit", help="operations of an artifact")
    command.add_argument("path", help="SavedModel folder or .tflite file")
    command.set_defaults(job=run)


def run(options):
    """Prints the audit."""
    import kmlp

    print(kmlp.export.audit(options.path))
