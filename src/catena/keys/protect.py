r"""Things wrapped so that exactly one TPM opens them, made without a TPM.

TPM 2.0 Library, Part 1 (revision 1.59): "Credential Protection" (clause 24) and "Duplication",
outer wrapper (clause 23.3). Both use the same construction under a fresh *seed* that only the
EK can recover (``seedshare``)::

    encrypted seed = RSA-OAEP(EK, seed, hash = nameAlg of the EK, label), or an ephemeral point
    symmetric key  = KDFa(nameAlg, seed, "STORAGE", Name, "", bits of the EK's cipher)
    HMAC key       = KDFa(nameAlg, seed, "INTEGRITY", "", "", bits of nameAlg)
    blob           = TPM2B(HMAC(ciphertext ‖ Name)) ‖ AES-CFB(symmetric key, IV 0, content)

=============  ==================  =====================  ======================
use            label               Name                   content
=============  ==================  =====================  ======================
credential     ``IDENTITY\0``       of the AK              TPM2B_DIGEST
import         ``DUPLICATE\0``      of the sealed object   TPM2B_SENSITIVE
=============  ==================  =====================  ======================

A sealed object is at most 128 bytes, so it holds an AES-256-GCM key and the payload travels
beside it. Its policy is TPM2_PolicyPCR and nothing else opens it: no password, no
administrator, no dictionary-attack lockout.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES

from catena.errors import Refusal, UsageError
from catena.formats.nodeapi import SealedSecret
from catena.formats.tpm2 import (
    Public,
    TpmAlg,
    TpmaObject,
    encode_keyedhash_public,
    encode_keyedhash_sensitive,
    encode_pcr_selection,
    object_name,
    sized2b,
)
from catena.ids import PCR_COUNT, HashAlg
from catena.keys.kdf import kdfa
from catena.keys.seedshare import CURVES, HASHES, share_seed

SECRET_KEY_SIZE = 32
MAX_SECRET = 1024 * 1024

_GCM_NONCE_SIZE = 12
_CC_POLICY_PCR = (0x0000017F).to_bytes(4, "big")
_MIN_RSA_BITS = 2048
_NAME_ALG = HashAlg.SHA256
_CIPHERS = frozenset({(128, TpmAlg.CFB), (256, TpmAlg.CFB)})
_SEALED_ATTRIBUTES = TpmaObject.ADMIN_WITH_POLICY | TpmaObject.NO_DA


class UnsupportedEndorsementKey(Refusal):
    """An EK of a kind, size or cipher that catena does not wrap things for."""

    code = "unsupported-endorsement-key"
    remedy = "Use a TPM with an endorsement key of RSA-2048 or larger, P-256 or P-384."


class SecretTooLarge(UsageError):
    """More than one secret can carry."""

    code = "secret-too-large"
    remedy = "Store a key as the secret, and the data elsewhere, encrypted with it."


class IncompletePcrs(UsageError):
    """A PCR policy over no PCRs, unknown PCRs, or values of another bank."""

    code = "incomplete-pcrs"
    remedy = "Give one value of the bank's digest size for each PCR from 0 to 23 that is sealed to."


def make_credential(
    ek: Public, ak_name: bytes, secret: bytes, *, seed: bytes
) -> tuple[bytes, bytes]:
    """TPM2_MakeCredential in software, for the EK ``ek`` and the AK with Name ``ak_name``.

    Returns the marshalled TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET that
    TPM2_ActivateCredential takes. ``secret`` is at most, and ``seed`` exactly, the digest size
    of the EK's nameAlg; the seed is random and never used twice.
    """
    parent = _parent(ek)
    size = parent.alg.size
    if not 0 < len(secret) <= size or len(seed) != size:
        raise UsageError(
            "a credential needs a secret and a seed of the EK's nameAlg",
            expected=f"1 to {size} and {size} bytes",
            got=f"{len(secret)} and {len(seed)}",
        )
    return _wrap(parent, b"IDENTITY\0", ak_name, sized2b(secret), seed)


def seal_to_tpm(
    ek: Public,
    secret: bytes,
    *,
    name: str,
    version: int,
    bank: HashAlg,
    pcr_values: Mapping[int, bytes],
    random: Callable[[int], bytes],
) -> SealedSecret:
    """Encrypt ``secret`` so that the TPM with ``ek`` opens it while its PCRs have these values."""
    parent = _parent(ek)
    if len(secret) > MAX_SECRET:
        raise SecretTooLarge("the secret is too large", expected=f"at most {MAX_SECRET} bytes")
    key = random(SECRET_KEY_SIZE)
    seed_value = random(_NAME_ALG.size)
    public = encode_keyedhash_public(
        name_alg=_NAME_ALG,
        attributes=_SEALED_ATTRIBUTES,
        auth_policy=policy_pcr_digest(bank, pcr_values),
        unique=_NAME_ALG.digest(seed_value + key),
    )
    sensitive = encode_keyedhash_sensitive(auth_value=b"", seed_value=seed_value, secret=key)
    name_of_object = object_name(_NAME_ALG, public)
    duplicate, seed = _wrap(
        parent, b"DUPLICATE\0", name_of_object, sized2b(sensitive), random(parent.alg.size)
    )
    sealed = SealedSecret(
        name=name,
        version=version,
        bank=bank.value,
        pcrs=tuple(sorted(pcr_values)),
        public=sized2b(public),
        duplicate=duplicate,
        seed=seed,
        nonce=random(_GCM_NONCE_SIZE),
        ciphertext=b"",
    )
    ciphertext = AESGCM(key).encrypt(sealed.nonce, secret, sealed.associated_data())
    return msgspec.structs.replace(sealed, ciphertext=ciphertext)


def policy_pcr_digest(bank: HashAlg, pcr_values: Mapping[int, bytes]) -> bytes:
    """AuthPolicy of TPM2_PolicyPCR alone (Part 3, 23.7), for objects with SHA-256 names."""
    if not pcr_values or any(
        pcr not in range(PCR_COUNT) or len(value) != bank.size for pcr, value in pcr_values.items()
    ):
        raise IncompletePcrs(
            "the PCR values do not make a policy", got=f"PCRs {sorted(pcr_values)} of {bank}"
        )
    values = _NAME_ALG.digest(b"".join(pcr_values[pcr] for pcr in sorted(pcr_values)))
    selection = encode_pcr_selection(bank, pcr_values)
    return _NAME_ALG.digest(bytes(_NAME_ALG.size) + _CC_POLICY_PCR + selection + values)


@dataclass(frozen=True, slots=True)
class _Parent:
    """What wrapping needs to know of an EK."""

    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    alg: HashAlg
    cipher_bits: int


def _parent(ek: Public) -> _Parent:
    """RSA from 2048 bits, P-256 or P-384; SHA-256 or better; AES-CFB. Anything else is refused."""
    key, symmetric = ek.key(), ek.symmetric
    if isinstance(key, rsa.RSAPublicKey):
        fits = ek.key_bits >= _MIN_RSA_BITS
    else:
        fits = key.curve.name in CURVES
    if not fits:
        got = f"{ek.kind} {ek.key_bits}"
        raise UnsupportedEndorsementKey("the EK is not RSA-2048 or larger, P-256 or P-384", got=got)
    if ek.name_alg not in HASHES:
        raise UnsupportedEndorsementKey("the EK's hash is too weak", got=ek.name_alg.value)
    if symmetric is None or (symmetric.key_bits, symmetric.mode) not in _CIPHERS:
        raise UnsupportedEndorsementKey("the EK does not wrap with AES-CFB")
    return _Parent(key, ek.name_alg, symmetric.key_bits)


def _wrap(
    parent: _Parent, label: bytes, name: bytes, content: bytes, random: bytes
) -> tuple[bytes, bytes]:
    """The construction of the module docstring: marshalled blob and encrypted seed."""
    alg = parent.alg
    seed, encrypted = share_seed(parent.key, alg, label, random)
    symmetric_key = kdfa(alg, seed, b"STORAGE", name, b"", bits=parent.cipher_bits)
    encryptor = Cipher(AES(symmetric_key), CFB(bytes(AES.block_size // 8))).encryptor()
    ciphertext = encryptor.update(content) + encryptor.finalize()
    hmac_key = kdfa(alg, seed, b"INTEGRITY", b"", b"", bits=alg.size * 8)
    integrity = hmac.digest(hmac_key, ciphertext + name, alg.value)
    return sized2b(sized2b(integrity) + ciphertext), sized2b(encrypted)
