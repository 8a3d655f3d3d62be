"""Sealing and opening DSSE envelopes (``formats.dsse``) with catena's keys.

Opening verifies first and parses the payload afterwards, so that no statement exists that
nobody signed. A ``keyid`` is only a hint: each signature is tried under each given key.
"""

from __future__ import annotations

from collections.abc import Sequence

from catena.errors import FormatError, Refusal, UsageError
from catena.formats import dsse
from catena.formats.dsse import IN_TOTO, Envelope, Signature, Statement
from catena.keys.signer import ForgedSignature, PublicKey, Signer, key_id_of, verify_signature


class UnsignedEnvelope(Refusal):
    """An envelope whose signatures are all empty."""

    code = "unsigned-envelope"
    remedy = "Have the document signed by its publisher."


class ForgedEnvelope(Refusal):
    """An envelope that claims a trusted key, whose signature does not hold."""

    code = "forged-envelope"
    remedy = "The document was changed after signing; obtain it again from its publisher."


class UntrustedSigner(Refusal):
    """An envelope signed only by keys that are not among the trusted ones."""

    code = "untrusted-signer"
    remedy = "Check which key should have signed, and give its public half."


class WrongPayloadType(FormatError):
    """A signed envelope around something else than what was asked for."""

    code = "wrong-payload-type"
    remedy = "Give the document of the kind this command reads."


class NoTrustedKeys(UsageError):
    """Nothing can be verified without a key."""

    code = "no-trusted-keys"
    remedy = "Name at least one public key to verify against."


def seal(signer: Signer, payload: Statement | bytes, payload_type: str = IN_TOTO) -> Envelope:
    """Sign a statement, or any payload of the given type."""
    body = payload if isinstance(payload, bytes) else payload.encode()
    signature = Signature(keyid=signer.key_id, sig=signer.sign(dsse.pae(payload_type, body)))
    return Envelope(payload=body, payload_type=payload_type, signatures=(signature,))


def open_envelope(data: bytes, keys: Sequence[PublicKey]) -> Statement:
    """Verify an envelope around an in-toto Statement and read the statement.

    Raises ``FormatError`` or the errors of ``open_payload``.
    """
    return dsse.parse_statement(open_payload(data, keys, IN_TOTO))


def open_payload(data: bytes, keys: Sequence[PublicKey], payload_type: str) -> bytes:
    """Verify an envelope and hand out its payload.

    Raises ``NoTrustedKeys``, ``UnsignedEnvelope``, ``UntrustedSigner``, ``ForgedEnvelope`` or
    ``WrongPayloadType``.
    """
    if not keys:
        raise NoTrustedKeys("no key to verify the envelope with")
    envelope = dsse.parse(data)
    _check_signatures(envelope, keys)
    if envelope.payload_type != payload_type:
        raise WrongPayloadType(
            "envelope carries another kind of payload",
            expected=payload_type,
            got=ascii(envelope.payload_type[:80]),
        )
    return envelope.payload


def _check_signatures(envelope: Envelope, keys: Sequence[PublicKey]) -> None:
    """One valid signature under one trusted key is enough."""
    signatures = [signature for signature in envelope.signatures if signature.sig]
    if not signatures:
        raise UnsignedEnvelope("envelope carries no signature")
    message = envelope.pae()
    if any(_holds(key, one.sig, message) for one in signatures for key in keys):
        return
    trusted = {key_id_of(key) for key in keys}
    claimed = next((one.keyid for one in signatures if one.keyid in trusted), None)
    if claimed is not None:
        raise ForgedEnvelope("signature of the envelope does not hold", expected=claimed[:16])
    raise UntrustedSigner(
        "envelope is signed by an unknown key",
        expected=", ".join(sorted(key_id[:16] for key_id in trusted)),
        got=ascii(signatures[0].keyid[:16]),
    )


def _holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        verify_signature(key, signature, message)
    except ForgedSignature:
        return False
    return True
