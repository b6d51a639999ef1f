"""Architectures as they are named on the command line."""


def add_architecture(command):
    """Adds the arguments that change an architecture's shapes."""
    command.add_argument("--num-classes", type=int)
    command.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="N",
        help="one size, or height and width",
    )


def model_arguments(options):
    """The arguments of `kmlp.create_model` beside the name."""
    shape = None
    if options.image_size is not None:
        if len(options.image_size) > 2:
            raise ValueError(
                "--image-size takes one size, or height and width. "
                f"Received: {options.image_size}"
            )
        shape = (options.image_size[0], options.image_size[-1], 3)
    return {"num_classes": options.num_classes, "input_shape": shape}
