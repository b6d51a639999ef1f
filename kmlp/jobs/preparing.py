"""Arguments that say how images become a model's input."""

from kmlp.console import channels, deviations, image_size, share

NAMES = ("image_size", "mean", "std", "test_crop", "test_interpolation")


def add_preparation(command):
    """Adds a group of arguments; the names of their values are `NAMES`."""
    group = command.add_argument_group(
        "preparing images (default: as the run wrote beside its weights)"
    )
    add = group.add_argument
    add("--image-size", type=image_size, metavar="PIXELS", help="height and width")
    add("--mean", type=channels, metavar="R,G,B", help="of images in 0…1")
    add("--std", type=deviations, metavar="R,G,B", help="the same")
    add(
        "--test-crop",
        type=share,
        metavar="X",
        help="side of the centre crop for the resized image's shorter side (1)",
    )
    add(
        "--interpolation",
        dest="test_interpolation",
        choices=("bilinear", "bicubic"),
        help="of the resizing (bilinear)",
    )


def given(options):
    """`{name: value}` of what the command line says, `None` where it says nothing."""
    return {name: getattr(options, name) for name in NAMES}
