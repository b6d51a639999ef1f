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
        "a BMP": b"BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00"
        b"\x01\x00\x00\x00\x01\x00\x00\x00\x01\x00\x18\x00" + bytes(28),
    }


def resized_png(png: bytes, width: int, height: int) -> bytes:
    """Return a PNG whose header claims another size, with the right checksum."""
    chunk = png[12:16] + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def resized_jpeg(jpeg: bytes, width: int, height: int) -> bytes:
    """Return a baseline JPEG whose header claims another size."""
    start = jpeg.index(_SOF0) + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]
