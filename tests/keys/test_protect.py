"""What ``keys.protect`` makes without a TPM, a real TPM opens: the right one, and only as sealed."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import UsageError
from catena.formats.nodeapi import SealedSecret
from catena.formats.tpm2 import (
    EccCurve,
    Public,
    SymmetricDef,
    TpmAlg,
    TpmaObject,
    parse_public,
)
from catena.ids import HashAlg
from catena.keys.kdf import kdfa
from catena.keys.protect import (
    MAX_SECRET,
    IncompletePcrs,
    SecretTooLarge,
    UnsupportedEndorsementKey,
    make_credential,
    policy_pcr_digest,
    seal_to_tpm,
)
from catena.keys.seedshare import share_seed
from catena.tpm.device import Tpm, open_tpm
from catena.tpm.failure import ForeignSeal, PcrPolicyUnmet, UnsteadyPcrs
from swtpm import SoftwareTpm, needs_swtpm, software_tpm

AES_128_CFB = SymmetricDef(128, TpmAlg.CFB)
BOOT_PCRS = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13)


@dataclass(frozen=True)
class Machines:
    here: SoftwareTpm
    elsewhere: SoftwareTpm


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with (
        software_tpm(folder / "a", certificates=False) as here,
        software_tpm(folder / "b", certificates=False) as elsewhere,
    ):
        yield Machines(here, elsewhere)


@pytest.fixture
def tpm(machines: Machines) -> Iterator[Tpm]:
    with open_tpm(machines.here.tcti) as opened:
        yield opened


def seal(tpm: Tpm, payload: bytes = b"payload", bank: HashAlg = HashAlg.SHA256) -> SealedSecret:
    values = dict(zip(BOOT_PCRS, tpm.read_pcrs(bank, BOOT_PCRS), strict=True))
    return seal_to_tpm(
        parse_public(tpm.ek_public()),
        payload,
        name="disk",
        version=3,
        bank=bank,
        pcr_values=values,
        random=os.urandom,
    )


def unseal(tpm: Tpm, sealed: SealedSecret) -> bytes:
    return tpm.unseal(
        public=sealed.public,
        duplicate=sealed.duplicate,
        seed=sealed.seed,
        bank=HashAlg(sealed.bank),
        pcrs=sealed.pcrs,
    )


def measure_after_policy(tpm: Tpm, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Extend PCR 10, as IMA does, between TPM2_PolicyPCR and TPM2_Unseal."""
    policy_pcr = tpm._esys.policy_pcr
    left = itertools.repeat(None, times)

    def then_extend(*arguments):
        policy_pcr(*arguments)
        for _ in itertools.islice(left, 1):
            tpm.extend(10, {HashAlg.SHA256: b"\2" * 32})

    monkeypatch.setattr(tpm._esys, "policy_pcr", then_extend)


def flip(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def software_ek(
    name_alg: HashAlg = HashAlg.SHA256,
    symmetric: SymmetricDef | None = AES_128_CFB,
    bits: int = 2048,
) -> tuple[rsa.RSAPrivateKey, Public]:
    """An EK public area around a key whose private half the test holds."""
    key = rsa.generate_private_key(65537, bits)
    public = Public(
        kind="rsa",
        name_alg=name_alg,
        attributes=TpmaObject.RESTRICTED | TpmaObject.DECRYPT,
        auth_policy=b"",
        symmetric=symmetric,
        scheme=None,
        key_bits=bits,
        exponent=65537,
        modulus=key.public_key().public_numbers().n.to_bytes(bits // 8, "big"),
        raw=b"",
    )
    return key, public


@pytest.fixture(scope="module")
def ek() -> Public:
    return software_ek()[1]


@pytest.mark.tpm
@needs_swtpm
class TestCredential:
    def test_tpm_and_key_it_was_made_for_open_it(self, tpm: Tpm):
        secret = os.urandom(32)
        ek, ak = parse_public(tpm.ek_public()), parse_public(tpm.ak_public())
        challenge = make_credential(ek, ak.name(), secret, seed=os.urandom(32))
        assert tpm.activate_credential(*challenge) == secret

    def test_another_tpm_does_not(self, tpm: Tpm, machines: Machines):
        ek, ak = parse_public(tpm.ek_public()), parse_public(tpm.ak_public())
        challenge = make_credential(ek, ak.name(), b"secret", seed=os.urandom(32))
        with open_tpm(machines.elsewhere.tcti) as other, pytest.raises(ForeignSeal):
            other.activate_credential(*challenge)

    def test_another_attestation_key_does_not(self, tpm: Tpm):
        ek = parse_public(tpm.ek_public())
        name = parse_public(tpm.ak_public()).name()
        challenge = make_credential(ek, flip(name, 200), b"secret", seed=os.urandom(32))
        with pytest.raises(ForeignSeal):
            tpm.activate_credential(*challenge)

    def test_altered_blob_or_seed_is_refused(self, tpm: Tpm):
        ek, ak = parse_public(tpm.ek_public()), parse_public(tpm.ak_public())
        blob, seed = make_credential(ek, ak.name(), b"secret", seed=os.urandom(32))
        for bit in range(32, len(blob) * 8, 89):
            with pytest.raises(ForeignSeal):
                tpm.activate_credential(flip(blob, bit), seed)
        for bit in range(24, len(seed) * 8, 331):
            with pytest.raises(ForeignSeal):
                tpm.activate_credential(blob, flip(seed, bit))
        with pytest.raises(ForeignSeal):
            tpm.activate_credential(blob, seed[:2] + b"\xff" * (len(seed) - 2))

    def test_import_seed_is_no_credential(self, tpm: Tpm):
        ak = parse_public(tpm.ak_public())
        ek = parse_public(tpm.ek_public())
        blob, _ = make_credential(ek, ak.name(), b"secret", seed=os.urandom(32))
        with pytest.raises(ForeignSeal):
            tpm.activate_credential(blob, seal(tpm).seed)


@pytest.mark.tpm
@needs_swtpm
class TestSealed:
    @pytest.mark.parametrize("bank", [HashAlg.SHA256, HashAlg.SHA384])
    def test_tpm_and_boot_state_it_was_sealed_to_open_it(self, tpm: Tpm, bank: HashAlg):
        sealed = seal(tpm, bank=bank)
        key = unseal(tpm, sealed)
        aad = sealed.associated_data()
        assert AESGCM(key).decrypt(sealed.nonce, sealed.ciphertext, aad) == b"payload"

    def test_another_tpm_does_not(self, tpm: Tpm, machines: Machines):
        sealed = seal(tpm)
        with open_tpm(machines.elsewhere.tcti) as other, pytest.raises(ForeignSeal):
            unseal(other, sealed)

    def test_another_boot_state_does_not_and_the_same_one_does_again(self, tmp_path):
        with software_tpm(tmp_path / "own", certificates=False) as machine:
            with open_tpm(machine.tcti) as tpm:
                sealed = seal(tpm)
                key = unseal(tpm, sealed)
                tpm.extend(12, {HashAlg.SHA256: b"\1" * 32})
                with pytest.raises(PcrPolicyUnmet):
                    unseal(tpm, sealed)
            machine.power_cycle()
            with open_tpm(machine.tcti) as tpm:
                assert unseal(tpm, sealed) == key

    def test_run_time_measurements_do_not_matter(self, tpm: Tpm):
        sealed = seal(tpm)
        tpm.extend(10, {HashAlg.SHA256: b"\1" * 32})
        assert unseal(tpm, sealed)

    def test_measurement_in_the_middle_of_unsealing_does_not_matter(self, tpm: Tpm, monkeypatch):
        sealed = seal(tpm)
        measure_after_policy(tpm, monkeypatch, times=2)
        assert unseal(tpm, sealed)

    def test_measurements_without_end_stop_unsealing(self, tpm: Tpm, monkeypatch):
        sealed = seal(tpm)
        measure_after_policy(tpm, monkeypatch, times=1000)
        with pytest.raises(UnsteadyPcrs):
            unseal(tpm, sealed)

    def test_narrower_or_wider_policy_than_sealed_is_refused(self, tpm: Tpm):
        sealed = seal(tpm)
        for pcrs in (BOOT_PCRS[1:], (*BOOT_PCRS, 14)):
            with pytest.raises(PcrPolicyUnmet):
                unseal(tpm, msgspec.structs.replace(sealed, pcrs=pcrs))

    def test_altered_pieces_are_refused(self, tpm: Tpm):
        sealed = seal(tpm)
        for piece, bit in itertools.chain(
            (("public", bit) for bit in (110, 300, 600)),
            (("duplicate", bit) for bit in (40, 300, 600, 850)),
            (("seed", bit) for bit in (30, 900, 2000)),
        ):
            altered = {piece: flip(getattr(sealed, piece), bit)}
            with pytest.raises(ForeignSeal):
                unseal(tpm, msgspec.structs.replace(sealed, **altered))

    def test_pieces_of_two_secrets_do_not_combine(self, tpm: Tpm):
        one, two = seal(tpm), seal(tpm)
        with pytest.raises(ForeignSeal):
            unseal(tpm, msgspec.structs.replace(one, duplicate=two.duplicate, seed=two.seed))


@given(
    alg=st.sampled_from([HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512]),
    key=st.binary(min_size=1, max_size=64),
    label=st.binary(min_size=1, max_size=16).filter(lambda label: 0 not in label),
    context=st.binary(max_size=80),
    size=st.integers(1, 150),
)
def test_kdfa_is_sp800_108_in_counter_mode(alg, key, label, context, size):
    algorithm = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}[alg]()
    reference = KBKDFHMAC(
        algorithm,
        Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    )
    half = len(context) // 2
    derived = kdfa(alg, key, label, context[:half], context[half:], bits=size * 8)
    assert derived == reference.derive(key)


@pytest.mark.parametrize("alg", [HashAlg.SHA256, HashAlg.SHA384, HashAlg.SHA512])
def test_seed_is_encrypted_with_the_name_algorithm_of_the_ek(alg: HashAlg):
    key, ek = software_ek(name_alg=alg)
    seed = os.urandom(alg.size)
    _, encrypted = make_credential(ek, b"name", b"secret", seed=seed)
    algorithm = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}[alg]()
    oaep = padding.OAEP(padding.MGF1(algorithm), algorithm, b"IDENTITY\0")
    assert key.decrypt(encrypted[2:], oaep) == seed


def test_sealed_object_opens_by_policy_alone_and_is_bound_to_no_password(ek: Public):
    sealed = seal_to_tpm(
        ek,
        b"payload",
        name="n",
        version=1,
        bank=HashAlg.SHA256,
        pcr_values={7: bytes(32)},
        random=os.urandom,
    )
    attributes = TpmaObject(int.from_bytes(sealed.public[6:10], "big"))
    assert attributes == TpmaObject.ADMIN_WITH_POLICY | TpmaObject.NO_DA
    assert sealed.public[12:44] == policy_pcr_digest(HashAlg.SHA256, {7: bytes(32)})
    assert sealed.pcrs == (7,)
    assert b"payload" not in msgspec.json.encode(sealed)


def test_randomness_is_only_what_the_caller_gives(ek: Public):
    def counting() -> Callable[[int], bytes]:
        numbers = itertools.count()
        return lambda size: hashlib.shake_256(bytes([next(numbers)])).digest(size)

    first, second = (
        seal_to_tpm(
            ek,
            b"payload",
            name="n",
            version=1,
            bank=HashAlg.SHA256,
            pcr_values={7: bytes(32)},
            random=counting(),
        )
        for _ in range(2)
    )
    # RSA-OAEP itself draws from the operating system.
    assert first.seed != second.seed
    assert msgspec.structs.replace(first, seed=b"") == msgspec.structs.replace(second, seed=b"")


def test_policy_digest_does_not_depend_on_the_order_of_pcrs():
    values = {pcr: hashlib.sha256(bytes([pcr])).digest() for pcr in BOOT_PCRS}
    turned = dict(reversed(values.items()))
    assert policy_pcr_digest(HashAlg.SHA256, values) == policy_pcr_digest(HashAlg.SHA256, turned)


@pytest.mark.parametrize(
    "values", [{}, {24: bytes(32)}, {-1: bytes(32)}, {0: bytes(20)}, {0: bytes(48)}, {0: b""}]
)
def test_policy_over_no_or_wrong_values_is_refused(values):
    with pytest.raises(IncompletePcrs):
        policy_pcr_digest(HashAlg.SHA256, values)


@pytest.mark.parametrize(
    "arguments",
    [
        {"bits": 1024},
        {"name_alg": HashAlg.SHA1},
        {"symmetric": None},
        {"symmetric": SymmetricDef(192, TpmAlg.CFB)},
        {"symmetric": SymmetricDef(128, 0x0042)},
    ],
    ids=str,
)
def test_weak_or_strange_rsa_endorsement_key_is_refused(arguments):
    _, ek = software_ek(**arguments)
    with pytest.raises(UnsupportedEndorsementKey):
        make_credential(ek, b"name", b"secret", seed=bytes(32))


@pytest.mark.tpm
@needs_swtpm
def test_a_key_that_wraps_nothing_is_refused(tpm: Tpm):
    with pytest.raises(UnsupportedEndorsementKey):
        make_credential(parse_public(tpm.ak_public()), b"name", b"secret", seed=bytes(32))


def elliptic_ek(curve: EccCurve, private: ec.EllipticCurvePrivateKey) -> Public:
    point = private.public_key().public_numbers()
    return Public(
        kind="ecc",
        name_alg=HashAlg.SHA256,
        attributes=TpmaObject.RESTRICTED | TpmaObject.DECRYPT,
        auth_policy=b"",
        symmetric=AES_128_CFB,
        scheme=None,
        key_bits=curve.bits,
        curve=curve,
        x=point.x.to_bytes(curve.size, "big"),
        y=point.y.to_bytes(curve.size, "big"),
        raw=b"",
    )


def test_an_endorsement_key_on_another_curve_is_refused():
    ek = elliptic_ek(EccCurve.P521, ec.generate_private_key(ec.SECP521R1()))
    with pytest.raises(UnsupportedEndorsementKey):
        make_credential(ek, b"name", b"secret", seed=bytes(32))


def test_an_elliptic_seed_is_agreed_on_as_another_library_does():
    """KDFe is the concatenation KDF over an ECDH; the point that is sent makes both sides equal."""
    private = ec.generate_private_key(ec.SECP256R1())
    ek = elliptic_ek(EccCurve.P256, private)
    seed, encrypted = share_seed(private.public_key(), HashAlg.SHA256, b"IDENTITY\0", bytes(32))
    assert (encrypted[:2], encrypted[34:36], len(encrypted)) == (b"\0\x20", b"\0\x20", 68)
    x, y = encrypted[2:34], encrypted[36:]
    numbers = ec.EllipticCurvePublicNumbers(
        *(int.from_bytes(one, "big") for one in (x, y)), ec.SECP256R1()
    )
    shared = private.exchange(ec.ECDH(), numbers.public_key())
    info = b"IDENTITY\0" + x + ek.x
    assert ConcatKDFHash(hashes.SHA256(), 32, info).derive(shared) == seed
    again = share_seed(private.public_key(), HashAlg.SHA256, b"IDENTITY\0", bytes(32))
    assert again == (seed, encrypted)
    other = share_seed(private.public_key(), HashAlg.SHA256, b"IDENTITY\0", b"\1" * 32)
    assert other[1] != encrypted


@pytest.mark.parametrize(
    ("secret", "seed"), [(b"", bytes(32)), (bytes(33), bytes(32)), (b"s", b""), (b"s", bytes(31))]
)
def test_credential_of_a_wrong_size_is_refused(ek: Public, secret: bytes, seed: bytes):
    with pytest.raises(UsageError):
        make_credential(ek, b"name", secret, seed=seed)


def test_secret_that_is_too_large_is_refused(ek: Public):
    with pytest.raises(SecretTooLarge):
        seal_to_tpm(
            ek,
            bytes(MAX_SECRET + 1),
            name="n",
            version=1,
            bank=HashAlg.SHA256,
            pcr_values={0: bytes(32)},
            random=os.urandom,
        )
