"""An OpenID provider's process for tests, and tokens that its key signed, or should not have."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

CLIENT = "catena-cli"
KID = "key-1"
ALICE = {"sub": "alice", "email": "alice@acme.example", "email_verified": True, "groups": ["ops"]}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Provider:
    folder: Path
    issuer: str

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def key(self):
        return serialization.load_pem_private_key((self.folder / "rsa.pem").read_bytes(), None)

    def says(self, person: dict) -> None:
        (self.folder / "claims.json").write_text(json.dumps(person))

    @property
    def settings(self) -> dict:
        return {
            "oidc_issuer": self.issuer,
            "oidc_client_id": CLIENT,
            "oidc_ca": str(self.ca),
            "oidc_roles": ("groups=admins admin", "groups=ops operator", "sub=carol auditor"),
        }

    def sign(self, claims: dict, header: dict | None = None, key=None) -> str:
        text = signing_input(header or {"alg": "RS256", "kid": KID}, claims)
        signature = (key or self.key).sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{text}.{b64(signature)}"


def signing_input(header: dict, claims: dict) -> str:
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"


@pytest.fixture(scope="session")
def provider(tmp_path_factory) -> Iterator[Provider]:
    folder = tmp_path_factory.mktemp("provider")
    command = [sys.executable, str(Path(__file__).with_name("oidc_provider.py")), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    provider = Provider(folder, process.stdout.readline().strip())
    provider.says(ALICE)
    yield provider
    process.kill()
    process.communicate()
