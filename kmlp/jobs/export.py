"""`kmlp export`: a checkpoint for serving or edge."""

from kmlp.quiet import quiet


def add(commands):
    """Adds the subparser."""
    command = commands.add_parser("export", help="a .keras file for serving or edge")
    command.add_argument("model", metavar="MODEL.keras")
    command.add_argument("output", help="folder of versions, or a .tflite file")
    command.add_argument(
        "--quantize", choices=["float16", "dynamic"], help="of a .tflite file"
    )
    command.add_argument(
        "--train-form", action="store_true", help="export without merging"
    )
    command.set_defaults(job=run)


def run(options):
    """Exports and prints where to."""
    import keras

    import kmlp

    with quiet():  # the backend looks for devices
        model = keras.models.load_model(options.model, compile=False)
    merge = not options.train_form
    if options.output.endswith(".tflite"):
        written = kmlp.export.tflite(
            model, options.output, merge=merge, quantize=options.quantize
        )
    elif options.quantize:
        raise ValueError(
            f"--quantize goes with a .tflite file. Received: output {options.output!r}"
        )
    else:
        written = kmlp.export.saved_model(model, options.output, merge=merge)
    print(written)
