"""Keys on a PKCS #11 token, with SoftHSM as the token."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import pkcs11uri
from catena.keys import hsm
from catena.keys.hsm import ModuleUnusable, TokenFailing, TokenKeyMissing, TokenMissing, WrongPin
from catena.keys.signer import (
    ExposedKey,
    ForgedSignature,
    KeyAlgorithm,
    MissingKey,
    UnusableKey,
    verify_signature,
)
from softhsm import *  # noqa: F403 - fixtures
from softhsm import MODULE, needs_softhsm


@needs_softhsm
@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("p256", KeyAlgorithm.ECDSA_P256),
        ("ed25519", KeyAlgorithm.ED25519),
        ("rsa", KeyAlgorithm.RSA_2048),
    ],
)
def test_a_key_signs_on_its_token(softhsm, name, algorithm):
    signer = hsm.open_signer(softhsm.uri(name))
    assert signer.algorithm is algorithm
    for data in (b"", b"x", b"y" * 10_000):
        verify_signature(signer.public_key, signer.sign(data), data)
    with pytest.raises(ForgedSignature):
        verify_signature(signer.public_key, signer.sign(b"x"), b"y")
    assert signer.key_id[:16] in repr(signer)


@needs_softhsm
def test_a_key_is_found_by_its_id_as_well(softhsm):
    by_name, by_id = (
        hsm.open_signer(softhsm.uri(name, more=more))
        for name, more in (("p256", ""), ("p256", ";id=%70%32%35%36;type=private"))
    )
    assert by_name.key_id == by_id.key_id


@needs_softhsm
def test_two_keys_of_one_token_at_once(softhsm):
    first, second = hsm.open_signer(softhsm.uri("p256")), hsm.open_signer(softhsm.uri("rsa"))
    for signer in (first, second, first):
        verify_signature(signer.public_key, signer.sign(b"x"), b"x")


@needs_softhsm
@pytest.mark.parametrize(
    ("name", "token", "error"),
    [
        ("p256", "another", TokenMissing),
        ("p256", "twin", TokenMissing),
        ("another", "catena", TokenKeyMissing),
        ("double", "catena", TokenKeyMissing),
        ("p384", "catena", UnusableKey),
        ("rsa1024", "catena", UnusableKey),
    ],
)
def test_what_is_not_there_or_not_clear_or_not_usable(softhsm, name, token, error):
    with pytest.raises(error):
        hsm.open_signer(softhsm.uri(name, token=token))


@needs_softhsm
def test_a_wrong_pin_is_told_without_it(softhsm):
    """In a process of its own: who is logged in, is so for the whole process."""
    uri = softhsm.uri("p256", pin="wrong-9876")
    program = "import sys; from catena.keys import hsm\nhsm.open_signer(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, uri],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "WrongPin" in done.stderr
    assert "wrong-9876" not in done.stderr
    assert WrongPin.code == "pkcs11-wrong-pin"


@needs_softhsm
def test_a_pin_that_others_may_read_or_that_is_not_there(softhsm):
    uri = softhsm.uri("p256")
    (softhsm.folder / "pin").chmod(0o640)
    with pytest.raises(ExposedKey):
        hsm.open_signer(uri)
    (softhsm.folder / "pin").unlink()
    with pytest.raises(MissingKey):
        hsm.open_signer(uri)


@needs_softhsm
@pytest.mark.parametrize("module", ["/no/such/module.so", "/etc/hostname"])
def test_a_module_that_is_none(softhsm, module):
    uri = softhsm.uri("p256").replace(str(MODULE), module)
    with pytest.raises(ModuleUnusable):
        hsm.open_signer(uri)


@needs_softhsm
def test_a_token_that_fails_is_told(softhsm):
    signer = hsm.open_signer(softhsm.uri("p256"))
    signer._key.session.close()
    with pytest.raises(TokenFailing):
        signer.sign(b"x")


# The URI ------------------------------------------------------------------------------------

GOOD = "pkcs11:token=t;object=k?module-path=/m.so&pin-source=/pin"


def test_a_uri_is_read():
    uri = pkcs11uri.parse(
        "pkcs11:serial=0a;id=%00%ff;object=my%20key;type=private"
        "?pin-source=file:/etc/catena/pin&module-path=/usr/lib/m.so"
    )
    assert (uri.serial, uri.id, uri.object, uri.token) == ("0a", b"\0\xff", "my key", None)
    assert (str(uri.pin_source), str(uri.module)) == ("/etc/catena/pin", "/usr/lib/m.so")
    assert pkcs11uri.parse(GOOD).token == "t"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:/x",
        "pkcs11:",
        "pkcs11:token=t?module-path=/m&pin-source=/p",
        "pkcs11:object=k?module-path=/m&pin-source=/p",
        "pkcs11:token=t;object=k",
        "pkcs11:token=t;object=k?module-path=/m",
        "pkcs11:token=t;object=k?pin-source=/p",
        "pkcs11:token=t;object=k?module-path=m.so&pin-source=/p",
        "pkcs11:token=t;object=k?module-path=/m&pin-source=p",
        "pkcs11:token=t;object=k?module-path=/m&pin-source=|cat",
        "pkcs11:token=t;object=k?module-path=/m&pin-source=/p&pin-value=1234",
        "pkcs11:token=t;object=k;type=public?module-path=/m&pin-source=/p",
        "pkcs11:token=t;token=u;object=k?module-path=/m&pin-source=/p",
        "pkcs11:token=t;object=k;slot-id=1?module-path=/m&pin-source=/p",
        "pkcs11:token=t;object=%zz?module-path=/m&pin-source=/p",
        "pkcs11:token=t;object=k ?module-path=/m&pin-source=/p",
        "pkcs11:token=%ff;object=k?module-path=/m&pin-source=/p",
        "pkcs11:token=t;object=k?module-path=/m%00&pin-source=/p",
        GOOD + "x" * 3000,
    ],
)
def test_what_names_no_key_is_refused_and_never_quoted(text):
    with pytest.raises(FormatError) as caught:
        pkcs11uri.parse(text)
    assert "1234" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text):
    for uri in (text, f"pkcs11:{text}", GOOD + text):
        try:
            pkcs11uri.parse(uri)
        except FormatError:
            continue
