"""``GET /v1/bundle``: whom to believe in this trust domain, for whoever asks.

The SPIFFE bundle format (SPIFFE Trust Domain and Bundle, sections 4 and 5): a JWK set with a key of the use
``x509-svid`` for each authority that is believed, its certificate in ``x5c``, and one of the use ``jwt-svid`` if nodes get tokens; ``spiffe_sequence`` grows with each change. It is
fetched over TLS, by a client that believes one of these authorities already (the profile ``https_spiffe`` is not
offered: the server's own certificate has a name, no SPIFFE ID).
"""

from __future__ import annotations

from typing import Final

import msgspec

from catena.formats.jwk import Jwk
from catena.keys.jose import certificate_jwk
from catena.server.crl import CRL_PATH
from catena.server.operation import Operation
from catena.service.authorities import key_id_of_certificate
from catena.service.setting import Setting

REFRESH_SECONDS = 300
"""Far shorter than any rotation's overlap should be."""


class TrustBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A SPIFFE bundle."""

    keys: tuple[Jwk, ...]
    spiffe_sequence: int
    spiffe_refresh_hint: int = REFRESH_SECONDS
    catena_crls: tuple[str, ...] = ()
    """Where each authority's list of revoked certificates is, in the order of ``keys``; others pass it over."""


def trust_bundle(setting: Setting) -> TrustBundle:
    """The bundle as it is now."""
    now, authorities = setting.now(), setting.authorities
    vouching = () if setting.vouching is None else (setting.vouching.jwk,)
    believed = authorities.believed(now)
    return TrustBundle(
        keys=(
            *(certificate_jwk(one, use="x509-svid") for one in believed),
            *vouching,
        ),
        spiffe_sequence=authorities.sequence(now),
        catena_crls=tuple(f"{CRL_PATH}/{key_id_of_certificate(one)}" for one in believed),
    )


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        "GET",
        "/v1/bundle",
        "Whom to believe in this trust domain: a SPIFFE bundle",
        answer=TrustBundle,
        verb=lambda at, _: trust_bundle(at.service.setting),
    ),
)
