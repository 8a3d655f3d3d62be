"""SoftHSM as a PKCS #11 token for tests: its own folder of tokens, keys made on them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

PIN = "catena-1234"
MODULES = [
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
]
MODULE = next((path for path in MODULES if path.exists()), None)
needs_softhsm = pytest.mark.skipif(
    MODULE is None or shutil.which("softhsm2-util") is None,
    reason="needs SoftHSM (Debian: softhsm2)",
)


@dataclass
class Hsm:
    """A token of SoftHSM with a key of each kind, made on it."""

    folder: Path

    def uri(
        self, name: str, *, token: str = "catena", pin: str | None = PIN, more: str = ""
    ) -> str:
        source = self.folder / "pin"
        if pin is not None:
            source.write_text(f"{pin}\n")
            source.chmod(0o600)
        where = f"module-path={MODULE}&pin-source=file:{source}"
        return f"pkcs11:token={token};object={quote(name)}{more}?{where}"


@functools.cache
def _made(base: Path) -> Hsm:
    """Made once per run, however many rooms import the fixture: a process sees one configuration."""
    folder = base / "softhsm"
    (folder / "tokens").mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    for label in ("catena", "twin", "twin"):
        words = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN]
        subprocess.run(["softhsm2-util", *words], check=True, capture_output=True, timeout=30)
    _make_keys()
    return Hsm(folder)


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory) -> Hsm:
    return _made(tmp_path_factory.getbasetemp())


def _make_keys() -> None:
    import pkcs11
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    (slot,) = [
        one
        for one in pkcs11.lib(str(MODULE)).get_slots(token_present=True)
        if one.get_token().label == "catena"
    ]
    curves = {"p256": "secp256r1", "p384": "secp384r1", "successor": "secp256r1"}
    with slot.get_token().open(rw=True, user_pin=PIN) as session:
        for label, curve in curves.items():
            parameters = session.create_domain_parameters(
                KeyType.EC,
                {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)},
                local=True,
            )
            parameters.generate_keypair(store=True, label=label, id=label.encode())
        parameters = session.create_domain_parameters(
            KeyType.EC_EDWARDS,
            {Attribute.EC_PARAMS: bytes.fromhex("06032b6570")},
            local=True,
        )
        parameters.generate_keypair(store=True, label="ed25519", id=b"e")
        for label, bits in (("rsa", 2048), ("rsa1024", 1024), ("double", 2048), ("double", 2048)):
            session.generate_keypair(KeyType.RSA, bits, store=True, label=label)
        for label, bits, kept in (
            ("kek", 256, True),
            ("kek2", 256, True),
            ("kek128", 128, True),
            ("loose", 256, False),
        ):
            template = {Attribute.EXTRACTABLE: not kept, Attribute.SENSITIVE: True}
            session.generate_key(KeyType.AES, bits, store=True, label=label, template=template)
