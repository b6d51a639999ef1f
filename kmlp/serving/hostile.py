"""Encoded images that no server should fall over, made from a good one."""

import struct
import zlib

HUGE = 50_000
_SOF0 = b"\xff\xc0"


def hostile_images(jpeg: bytes, png: bytes) -> dict[str, bytes]:
    """Return what must be refused, by words for it.

    Args:
        jpeg, png: Good images, the JPEG a baseline one.
    """
    return {
        "an empty string": b"",
        "text": b"not an image at all",
        "a truncated JPEG": jpeg[: len(jpeg) // 2],
        "a truncated PNG": png[: len(png) // 2],
        "half a JPEG header": jpeg[:12],
        "half a PNG header": png[:20],
        f"a JPEG of {HUGE:,} pixels a side": resized_jpeg(jpeg, HUGE, HUGE),
        f"a PNG of {HUGE:,} pixels a side": resized_png(png, HUGE, HUGE),
        "a PNG of no pixels": resized_png(png, 0, 7),
        "a damaged PNG": png[:-30] + bytes(14) + png[-16:],
        "a GIF": b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff,"
        b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
        "a BMP of 4 bits a pixel": bmp(1, 1, bits=4),
        "a BMP cut short": bmp(9, 9)[:-9],
        f"a BMP of {HUGE:,} pixels a side": bmp(HUGE, HUGE, pixels=b""),
        # WebP has 14 bits for a side.
        "a WebP of 16,000 pixels a side": lossless_webp(16_000, 16_000),
        "half a WebP header": lossless_webp(8, 8)[:14],
    }


def bmp(width: int, height: int, bits: int = 24, pixels: bytes | None = None) -> bytes:
    """Return a black BMP, uncompressed and without a palette."""
    if pixels is None:
        pixels = bytes((width * bits // 8 + 3) // 4 * 4 * height)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, *([0] * 6))
    return b"BM" + struct.pack("<IHHI", 54 + len(pixels), 0, 0, 54) + header + pixels


def lossless_webp(width: int, height: int) -> bytes:
    """Return the header of a lossless WebP, and nothing behind it."""
    chunk = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(9)
    chunk = b"VP8L" + struct.pack("<I", len(chunk)) + chunk
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def resized_png(png: bytes, width: int, height: int) -> bytes:
    """Return a PNG whose header claims another size, with the right checksum."""
    chunk = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a baseline JPEG whose header claims another size."""
    start = jpeg.index(_SOF0) + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]
