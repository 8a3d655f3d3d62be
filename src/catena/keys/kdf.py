"""The key derivation functions of TPM 2.0 (TPM 2.0 Library, Part 1, clause 11.4.10)."""

from __future__ import annotations

import hmac

from catena.ids import HashAlg


def kdfa(
    alg: HashAlg, key: bytes, label: bytes, context_u: bytes, context_v: bytes, *, bits: int
) -> bytes:
    """KDFa (11.4.10.2): SP 800-108 in counter mode with HMAC."""
    fixed = label + b"\0" + context_u + context_v + bits.to_bytes(4, "big")
    size = bits // 8
    stream = b"".join(
        hmac.digest(key, counter.to_bytes(4, "big") + fixed, alg.value)
        for counter in range(1, -(-size // alg.size) + 1)
    )
    return stream[:size]


def kdfe(alg: HashAlg, shared: bytes, label: bytes, party_u: bytes, party_v: bytes) -> bytes:
    """KDFe (11.4.10.3): the concatenation KDF of SP 800-56A, one digest long.

    ``shared`` is the x coordinate of an ECDH; ``label`` includes its NUL.
    """
    return alg.digest((1).to_bytes(4, "big") + shared + label + party_u + party_v)
