"""Encoded pictures of every kind that a server meets."""

import io

import numpy as np
from PIL import Image


def picture(width, height, seed=0):
    """Something smooth with edges, in colour."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.BICUBIC)
    image.paste((250, 20, 90), (width // 4, height // 3, width // 2, height // 2))
    return image


def encoded(image, kind, **options):
    contents = io.BytesIO()
    image.save(contents, kind, **options)
    return contents.getvalue()


def of_mode(mode, kind, size=(50, 37), **options):
    return encoded(picture(*size).convert(mode), kind, **options)


def deep_png():
    gray = np.random.default_rng(0).integers(0, 2**16, (45, 60), np.uint16)
    return encoded(Image.fromarray(gray), "PNG")


# Case -> bytes of pictures that are strange and good.
STRANGE = {
    "JPEG": of_mode("RGB", "JPEG"),
    "progressive JPEG": of_mode("RGB", "JPEG", progressive=True),
    "gray JPEG": of_mode("L", "JPEG"),
    "CMYK JPEG": of_mode("CMYK", "JPEG"),
    "JPEG with more behind it": of_mode("RGB", "JPEG") + b"and more",
    "PNG": of_mode("RGB", "PNG"),
    "gray PNG": of_mode("L", "PNG"),
    "bilevel PNG": of_mode("1", "PNG"),
    "palette PNG": of_mode("P", "PNG"),
    "transparent PNG": of_mode("RGBA", "PNG"),
    "16-bit PNG": deep_png(),
    "one pixel, JPEG": of_mode("RGB", "JPEG", (1, 1)),
    "one pixel, PNG": of_mode("RGB", "PNG", (1, 1)),
    "tall JPEG": of_mode("RGB", "JPEG", (1, 5000)),
    "wide PNG": of_mode("RGB", "PNG", (5000, 1)),
}
