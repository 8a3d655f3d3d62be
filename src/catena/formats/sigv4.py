"""Signing requests to S3-compatible storage (AWS Signature Version 4, header form).

Steps are numbered as "Create a signed AWS API request" numbers them. Pure: the time is an argument.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks. The secret key never shows in a representation."""

    access_key: str
    secret_key: str = field(repr=False)


def sign(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    content: bytes,
    *,
    credentials: Credentials,
    region: str,
    at: datetime,
) -> dict[str, str]:
    """``headers`` (lower-case names, with ``host``) and those that authenticate the request.

    ``path`` is as it is sent, percent-encoded once; ``at`` is in UTC.
    """
    digest = hashlib.sha256(content).hexdigest()
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    signed = dict(headers) | {"x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(sorted(signed))
    # 1. and 2. The canonical request, and its hash.
    canonical = "\n".join(
        (
            method,
            path,
            encode_query(query),
            *(f"{name}:{signed[name].strip()}" for name in sorted(signed)),
            "",
            names,
            digest,
        )
    )
    # 3. The string to sign.
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashed}"
    # 4. and 5. The signing key, and the signature.
    key = f"AWS4{credentials.secret_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, text).hex()
    # 6. The header.
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed


def encode_query(query: Mapping[str, str]) -> str:
    """The canonical query string, which is also a valid one to send."""
    pairs = sorted((quote(name, safe="~"), quote(text, safe="~")) for name, text in query.items())
    return "&".join(f"{name}={text}" for name, text in pairs)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
