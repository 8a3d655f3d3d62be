"""A small OpenID provider for tests, written from the specifications: a process on loopback with TLS.

Usage: ``python oidc_provider.py FOLDER``; FOLDER gets ``ca.pem`` (its certificate), ``rsa.pem`` (its signing key) and
``claims.json`` is read for what it says about the person, at each login. It logs everybody in at once: the
authorization endpoint answers with the redirect that a browser would follow.

It shares no code with catena. OpenID Connect Core 1.0, Discovery 1.0, RFC 6749, RFC 7636, RFC 9207.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.server
import ipaddress
import json
import secrets
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

CLIENT = "catena-cli"
KID = "key-1"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate(key) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def signed(key, claims: dict, header: dict) -> str:
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{text}.{b64(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class Provider(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.issuer = f"https://127.0.0.1:{self.server_address[1]}"
        self.codes: dict[str, dict] = {}
        self.key = rsa.generate_private_key(65537, 2048)
        tls_key = ec.generate_private_key(ec.SECP256R1())
        own = certificate(tls_key)
        (folder / "tls.pem").write_bytes(pem(tls_key) + own)
        (folder / "ca.pem").write_bytes(own)
        (folder / "rsa.pem").write_bytes(pem(self.key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def discovery(self) -> dict:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def jwks(self) -> dict:
        numbers = self.key.public_key().public_numbers()
        n, e = numbers.n.to_bytes(256), numbers.e.to_bytes(3)
        return {
            "keys": [
                {"kty": "RSA", "kid": KID, "use": "sig", "alg": "RS256", "n": b64(n), "e": b64(e)},
                {"kty": "future", "kid": "key-2", "what": 1},
            ]
        }

    def id_token(self, asked: dict) -> str:
        now = int(time.time())
        person = json.loads((self.folder / "claims.json").read_text())
        claims = {
            "iss": self.issuer,
            "aud": asked["client_id"],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **person,
        }
        return signed(self.key, claims, {"alg": "RS256", "kid": KID, "typ": "JWT"})


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path:
            case "/.well-known/openid-configuration":
                self.answer(200, self.server.discovery())
            case "/jwks":
                self.answer(200, self.server.jwks())
            case "/authorize":
                self.authorize(query)
            case _:
                self.answer(404, {})

    def authorize(self, query: dict) -> None:
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        assert query["redirect_uri"].startswith("http://127.0.0.1:")
        code = secrets.token_urlsafe()
        self.server.codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.server.issuer}
        if query["client_id"] != CLIENT:
            answer = {"error": "unauthorized_client", "state": query["state"]}
        self.send_response(302)
        self.send_header("location", f"{query['redirect_uri']}?{urlencode(answer)}")
        self.end_headers()

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(length).decode()).items()}
        asked = self.server.codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "").encode()
        if (
            asked is None
            or form["grant_type"] != "authorization_code"
            or form["client_id"] != asked["client_id"]
            or form["redirect_uri"] != asked["redirect_uri"]
            or b64(hashlib.sha256(verifier).digest()) != asked["code_challenge"]
        ):
            self.answer(400, {"error": "invalid_grant"})
            return
        token = self.server.id_token(asked)
        self.answer(200, {"access_token": "x", "token_type": "Bearer", "id_token": token})

    def answer(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


if __name__ == "__main__":
    provider = Provider(Path(sys.argv[1]))
    sys.stdout.write(f"{provider.issuer}\n")
    sys.stdout.flush()
    provider.serve_forever()
