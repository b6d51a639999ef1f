"""Image files as pixels, by Pillow: what `kmlp.data.decode` makes of them in a graph.

Both take the same kinds and give the same pixels. GIF is none of them: decoders differ
where it is transparent, and its header does not tell what it costs.
"""

import dataclasses
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kmlp.typing import PathLike

KINDS = "JPEG, PNG, WebP and BMP"
# Bytes that hold the sizes of every kind.
HEADER = 34
# Bits per pixel of a BMP -> its compressions, of which 3 are bit fields.
BMP_FORMS = {8: (0,), 24: (0,), 32: (0, 3)}
# What Pillow may take a file for; phones' JPEGs of several pictures are among them.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class Unreadable(Exception):
    """An image or its annotation that cannot be used, though others may be.

    Args:
        place: Path of the file.
        why: Reason in a few words.
    """

    def __init__(self, place: PathLike, why: str):
        super().__init__(f"{place} ({why})")
        self.place, self.why = place, why


def fault(header: bytes) -> str | None:
    """Say why a file is no image that is taken; `None` where its beginning is good.

    Args:
        header: The first `HEADER` bytes of the file, or all that there are.
    """
    if not header:
        return "empty"
    if header.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return None
    if header.startswith(b"RIFF") and header[8:12] == b"WEBP":
        animated = header[12:16] == b"VP8X" and header[20:21] and header[20] & 2
        return "an animated WebP: keep one frame as PNG" if animated else None
    if header.startswith(b"BM") and len(header) == HEADER:
        bits, compression = header[28], int.from_bytes(header[30:34], "little")
        if header[14] >= 40 and compression in BMP_FORMS.get(bits, ()):
            return None
        return f"a compressed BMP, or of {bits} bits a pixel: save it as PNG"
    if header.startswith(b"GIF8"):
        return "a GIF: save the frame that counts as PNG"
    return f"none of {KINDS}"


def read_image(path: PathLike, upright: bool = False) -> np.ndarray:
    """Read an image, `(H, W, 3)` uint8; of 16 bits per channel the high eight.

    Args:
        path: Path of the file.
        upright: Whether a JPEG is turned as its EXIF states.

    Raises:
        Unreadable: If it is damaged, or of a kind that is not taken.
        OSError: If it is gone.
    """

    return _opened(path, lambda image: _pixels(image, upright), _FORMATS)


def _pixels(image, upright=False):
    from PIL import ImageOps

    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int32) >> 8, 0, 255)
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if upright and orientation(image) > 1:
        image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGB"))


def image_size(path: PathLike, upright: bool = False) -> tuple[int, int]:
    """Read height and width from the header.

    Args:
        path, upright: As in `read_image`.

    Raises:
        Unreadable: If it is damaged, or of a kind that is not taken.
        OSError: If it is gone.
    """

    def sides(image: Any) -> tuple[int, int]:
        across = upright and orientation(image) >= 5
        return image.size if across else image.size[::-1]

    return _opened(path, sides, _FORMATS)


def read_map(path: PathLike) -> np.ndarray:
    """Read a class map, `(H, W)` integers.

    Raises:
        Unreadable: If it is damaged or in colour.
        OSError: If it is gone.
    """
    # The indices of a map with a palette, not its colours.
    found = _opened(path, np.asarray)
    if found.ndim != 2:
        raise Unreadable(path, "a picture in colour, not a map of class numbers")
    return found


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an image file is.

    Attributes:
        size: Height and width as the pixels lie.
        mode: Pillow's name of its channels, such as `"RGB"`, `"L"` or `"I;16"`.
        orientation: Orientation that a JPEG's EXIF states, 1 to 8.
        digest: Hash of its pixels, whatever the kind of file.
    """

    size: tuple[int, int]
    mode: str
    orientation: int
    digest: str


def inspect(file: Path | bytes) -> Facts:
    """Decode an image and say what it is.

    Args:
        file: Path of the file, or its bytes.

    Raises:
        Unreadable: If it is damaged, or of a kind that is not taken.
        OSError: If it is gone.
    """

    def facts(image: Any) -> Facts:
        return facts_of(_pixels(image), image.mode, orientation(image))

    return _opened(file, facts, _FORMATS)


def facts_of(pixels: np.ndarray, mode: str = "RGB", orientation: int = 1) -> Facts:
    """Return the facts of decoded pixels, `(H, W, 3)` uint8."""
    digest = hashlib.blake2b(pixels.tobytes()).hexdigest()
    return Facts(pixels.shape[:2], mode, orientation, digest)


def orientation_of(path: PathLike) -> int:
    """Return `orientation` of a file.

    Raises:
        Unreadable: If it is damaged, or of a kind that is not taken.
        OSError: If it is gone.
    """
    return _opened(path, orientation, _FORMATS)


def orientation(image: Any) -> int:
    """Return the orientation, 1 to 8, that a JPEG's EXIF states; 1 where none does.

    Args:
        image: Opened `PIL.Image.Image`.
    """
    if image.format not in ("JPEG", "MPO"):
        return 1
    stated = image.getexif().get(0x0112, 1)
    return stated if stated in range(1, 9) else 1


def _opened(path, function: Callable, formats=None):
    from PIL import Image, UnidentifiedImageError

    in_memory = isinstance(path, bytes)
    with io.BytesIO(path) if in_memory else open(path, "rb") as file:
        path = "an image in memory" if in_memory else path
        header = file.read(HEADER)
        if (formats or not header) and (why := fault(header)) is not None:
            raise Unreadable(path, why)
        file.seek(0)
        try:
            with Image.open(file, formats=formats) as image:
                return function(image)
        except UnidentifiedImageError as error:
            raise Unreadable(path, "no picture that Pillow knows") from error
        # Pillow's many ways of saying that a file is cut short or wrong.
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
        ) as error:
            raise Unreadable(path, str(error)) from error
