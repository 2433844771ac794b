"""A checksum of a whole file, kept in the file's own metadata.

It is checked before any parser sees the bytes: Parquet readers may end the process on altered ones. The
file is first written with zeros in the checksum's place; the checksum is that of the file with these zeros.
"""

import hashlib

KEY = "checksum"
_MARK = b"lratlas-sha256:"
_DIGITS = 64
PLACEHOLDER = (_MARK + b"0" * _DIGITS).decode()


def seal(data: bytes) -> bytes:
    """The file with its checksum in the place of ``PLACEHOLDER``.

    Args:
        data: A file that holds ``PLACEHOLDER`` once, uncompressed, as a value of its metadata.

    Returns:
        The same file, of the same length, sealed.

    Raises:
        ValueError: The placeholder is missing or stands more than once.
    """
    if data.count(_MARK) != 1:
        raise ValueError(f"the text {_MARK.decode()} must stand in the metadata alone")
    start = data.index(_MARK) + len(_MARK)
    return data[:start] + _digest(data, start) + data[start + _DIGITS :]


def is_intact(data: bytes) -> bool:
    """Whether the file is, to the last byte, the one that was sealed."""
    if data.count(_MARK) != 1:
        return False
    start = data.index(_MARK) + len(_MARK)
    return data[start : start + _DIGITS] == _digest(data, start)


def _digest(data: bytes, start: int) -> bytes:
    view = memoryview(data)
    total = hashlib.sha256(view[:start])
    total.update(b"0" * _DIGITS)
    total.update(view[start + _DIGITS :])
    return total.hexdigest().encode()
