"""What the tests with random bytes share."""

from collections.abc import Callable

from hypothesis import strategies as st


def refusal(read: Callable[[], object], kind: type[Exception]) -> str:
    """What is said where something is refused; empty where it is read. Any other error is a failure of the test."""
    try:
        read()
    except kind as error:
        return str(error)
    return ""


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes cut short, with one bit flipped, or with a stretch cut out, doubled or replaced."""
    first = draw(st.integers(0, len(data)))
    last = draw(st.integers(first, min(len(data), first + 40)))
    flipped = bytes([data[first] ^ 1 << draw(st.integers(0, 7))]) + data[first + 1 :] if first < len(data) else b""
    stretch = draw(st.binary(max_size=12) | st.just(data[first:last] * 2)) + data[last:]
    return data[:first] + draw(st.sampled_from([b"", flipped, stretch]))
