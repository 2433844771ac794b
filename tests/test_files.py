import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lratlas.files import PLACEHOLDER, is_intact, seal

HOLE = PLACEHOLDER.encode()


def around(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=size).filter(lambda data: b"lratlas" not in data)


@given(before=around(50), after=around(50))
def test_a_sealed_file_holds_the_digest_of_itself_with_zeros_in_its_place(before: bytes, after: bytes):
    data = before + HOLE + after
    sealed = seal(data)
    assert sealed == before + HOLE[:-64] + hashlib.sha256(data).hexdigest().encode() + after
    assert is_intact(sealed)


@given(before=around(20), after=around(20), bit=st.integers(0, 7))
def test_a_single_flipped_bit_is_noticed_wherever_it_is(before: bytes, after: bytes, bit: int):
    sealed = seal(before + HOLE + after)
    for place in range(len(sealed)):
        altered = bytearray(sealed)
        altered[place] ^= 1 << bit
        assert not is_intact(bytes(altered))


@pytest.mark.parametrize("data", [b"", b"no place for it", HOLE + HOLE])
def test_only_a_file_with_one_place_for_it_is_sealed(data: bytes):
    assert not is_intact(data)
    with pytest.raises(ValueError, match="must be in the metadata only"):
        seal(data)
