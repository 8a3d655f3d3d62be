from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from catena.tpm.endorsement import chain, split_der


def der(content: bytes) -> bytes:
    """A DER SEQUENCE."""
    size = len(content)
    if size < 0x80:
        return bytes([0x30, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x30, 0x80 + len(length)]) + length + content


sequences = st.lists(st.binary(max_size=600).map(der), max_size=4)


@given(sequences, st.sampled_from([b"", b"\0" * 9, b"\xff" * 9]))
def test_certificates_are_split_and_padding_is_dropped(parts, padding):
    assert list(split_der(b"".join(parts) + padding)) == parts


@given(st.binary(min_size=1, max_size=300).map(der), st.data())
def test_truncated_certificate_is_dropped(whole, data):
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert list(split_der(whole[:cut])) == []


@given(st.binary(max_size=100))
def test_any_bytes_end_the_split(noise):
    assert b"".join(split_der(noise)) == noise[: len(b"".join(split_der(noise)))]


@given(sequences, st.data())
def test_a_chain_is_put_together_across_indices(parts, data):
    """Wherever the vendor cut it, and whatever pads the indices behind whole certificates."""
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert list(chain(pieces)) == parts
    filler = data.draw(st.sampled_from([b"\0" * 7, b"\xff" * 7]))
    assert list(chain(part + filler for part in parts)) == parts


def test_indefinite_and_oversized_lengths_are_not_followed():
    assert list(split_der(b"\x30\x80\x00\x00")) == []
    assert list(split_der(b"\x30\x84\xff\xff\xff\xff" + bytes(64))) == []
