"""The chain of a journal's lines: each line contains the digest of the line before it.

Removed, repeated and reordered lines break the chain. Lines of earlier versions have no digest; they may only come
before all lines that have one.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lratlas.files import KEY, digest, seal_json

AFTER = "after"
"""Field of a line: the digest of the line before it."""


def chain_lines(records: Sequence[Mapping[str, Any]], last: bytes = b"") -> list[bytes]:
    """The records as sealed lines without line breaks, each with the digest of the line before it.

    Args:
        records: The records, in order; digests and checksums in them are replaced.
        last: The line before the first record; empty at the beginning of a journal.

    Raises:
        ValueError: A number in a record is not finite.
    """
    lines = list[bytes]()
    for record in records:
        own = {name: value for name, value in record.items() if name not in {AFTER, KEY}}
        last = seal_json({AFTER: digest(last), **own}).encode().removesuffix(b"\n")
        lines.append(last)
    return lines


def find_breaks(lines: Sequence[bytes | None]) -> list[int]:
    """The numbers of the lines, from 1, that do not follow the line before them.

    Args:
        lines: The lines of a journal; None for an unreadable line, after which any line may follow.
    """
    found, chained = list[int](), False
    before: bytes | None = b""
    for number, line in enumerate(lines, start=1):
        after = _after(line) if line is not None else None
        bound = line is not None and before is not None and (chained or after is not None)
        if bound and after != digest(before or b""):
            found.append(number)
        chained, before = chained or after is not None, line
    return found


def restore_order(lines: Sequence[bytes]) -> list[bytes]:
    """Readable lines without repetitions, each after the line whose digest it has if that line exists."""
    followers, known = defaultdict[str | None, list[bytes]](list), {digest(line) for line in lines}
    unique = list(dict.fromkeys(lines))
    for line in unique:
        followers[_after(line)].append(line)
    starts = [line for line in unique if _after(line) not in known]
    return [each for start in starts for each in _walk(start, followers)]


def _walk(start: bytes, followers: Mapping[str | None, list[bytes]]) -> Iterator[bytes]:
    left = [start]
    while left:
        line = left.pop()
        yield line
        left += reversed(followers.get(digest(line), []))


def _after(line: bytes) -> str | None:
    return json.loads(line).get(AFTER)
