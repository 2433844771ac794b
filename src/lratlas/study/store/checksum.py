"""A checksum of a whole file, kept in the file itself.

Tables and weights have it in their metadata, where it is checked before any parser sees the bytes: Parquet readers may
end the process on altered ones. The file is first written with zeros in the checksum's place; the checksum is that of
the file with these zeros. Small files of JSON have it as a field beside the others.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "checksum"
_MARK = b"lratlas-sha256:"
_DIGITS = 64
PLACEHOLDER = (_MARK + b"0" * _DIGITS).decode()
ALTERED = "was cut short or altered"  # what is said of a file that is not intact


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


def sealed_json(content: Mapping[str, Any]) -> str:
    """An object as one line of JSON, with a checksum of its fields as the first one.

    Raises:
        ValueError: A number in it is not finite.
    """
    sealed = {KEY: _digest_of_fields(content), **content}
    return json.dumps(sealed, separators=(",", ":"), allow_nan=False) + "\n"


def opened_json(text: str | bytes) -> dict[str, Any]:
    """The object that `sealed_json` wrote.

    Raises:
        ValueError: It is not JSON, holds no object, lacks the checksum, or was altered.
    """
    try:
        content = json.loads(text)
        intact = content.pop(KEY) == _digest_of_fields(content)
    except (KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError("it is not an object with a checksum") from error
    if not intact:
        raise ValueError("it does not fit its checksum")
    return content


def digest(data: bytes) -> str:
    """SHA-256 of a file that holds no checksum of itself."""
    return hashlib.sha256(data).hexdigest()


def _digest_of_fields(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True).encode())
