"""Data sets as they are named on the command line."""

from kmlp.errors import InputError

PREFIX = "tfds:"


def open_source(spec=None, *, data_dir=None, download=False, on_corrupt="stop"):
    """A data set to train on: listed, not read.

    Args:
        spec: a folder of images, `tfds:NAME[/CONFIG]`, or `None`: the embedded digits.
        data_dir: where TensorFlow Datasets keeps its sets; `None`: its default.
        download: whether a set that is not there is fetched.
        on_corrupt: `"stop"` or `"skip"` where images cannot be decoded.

    Returns:
        A `Source`; `load` makes it ready.

    Raises:
        InputError: no such data, or in no layout that is known.
    """
    if spec is None:
        from kmlp.data.digits import digits

        return digits()
    if str(spec).startswith(PREFIX):
        from kmlp.data.named import named_set

        name = str(spec).removeprefix(PREFIX)
        return named_set(name, data_dir, download=download, on_corrupt=on_corrupt)
    from kmlp.data.folders import image_folder

    try:
        return image_folder(spec, on_corrupt)
    except OSError as error:  # no permission, a lost disk
        raise InputError(f"--data: {error}") from error
