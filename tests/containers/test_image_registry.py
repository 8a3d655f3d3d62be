"""A registry as a source: the real one, and one that tries everything."""

import base64
import json
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from signing import BUNDLE, COSIGN, NOW, pem, policy, signer

from catena.containers.images import attached
from catena.containers.images.blobs import AlteredBlob, MissingBlob
from catena.containers.images.copy import fetch
from catena.containers.images.layout import Layout
from catena.containers.images.opening import (
    Access,
    BadAuthFile,
    ExposedAuthFile,
    NoRepository,
    opened,
)
from catena.containers.images.registry import OtherSource, Registry
from catena.containers.images.source import MovedTag, UnknownImage
from catena.containers.images.transport import (
    Credentials,
    PlainHttp,
    RegistryDenied,
    RegistryUnreachable,
    Transport,
    is_loopback,
)
from catena.containers.signature.sign import attach_launch_policy, sign_image, target_of
from catena.containers.signature.verify import verify_image
from catena.errors import FormatError
from catena.formats import oci
from catena.formats.containerpolicy import Scope
from catena.formats.launchpolicy import LaunchPolicy
from container_images import needs_registry

LAUNCH = LaunchPolicy(name="app", version=1, argv=(("/app",),))

# The real one ------------------------------------------------------------------------------


@pytest.fixture
def image(local_registry):
    word = secrets.token_hex(4)
    return local_registry.push(f"registry/{word}", word)


@pytest.fixture
def repository(local_registry, image):
    with Transport(local_registry.host, plain_http=True) as transport:
        yield Registry(transport, image.reference.rpartition(":")[0])


@needs_registry
def test_an_image_is_found_by_tag_by_digest_and_by_both(image, repository):
    name = image.reference.rpartition(":")[0]
    for one in (image.reference, f"{name}@{image.digest}", f"{image.reference}@{image.digest}"):
        assert repository.resolve(one) == image.digest
    assert repository.repositories(image.digest) == (name,)


@needs_registry
def test_a_tag_that_was_moved_is_refused_beside_its_digest(local_registry, image, repository):
    name = image.reference.removeprefix(local_registry.host + "/").rpartition(":")[0]
    moved = local_registry.push(name, "moved")
    with pytest.raises(MovedTag) as refused:
        repository.resolve(f"{image.reference}@{image.digest}")
    assert refused.value.got == moved.digest


@needs_registry
def test_an_image_that_is_not_there_is_unknown(image, repository):
    name = image.reference.rpartition(":")[0]
    for one in (f"{name}:no", f"{name}@{oci.digest_of(b'no')}", name):
        with pytest.raises(UnknownImage):
            repository.resolve(one)
    with pytest.raises(OtherSource):
        repository.resolve(f"{name}-other:1")
    with pytest.raises(MissingBlob):
        repository.blobs.read(oci.digest_of(b"no"), 100)


@needs_registry
def test_what_is_signed_in_a_registry_is_verified_there_and_in_a_store_that_fetched_it(
    tmp_path, image, repository
):
    name, key = image.reference.rpartition(":")[0], signer()
    rules = policy({"team": [pem(key)]}, [Scope(repository=name, publishers=("team",))])
    target = target_of(repository, image.reference, name)
    for kind in (COSIGN, BUNDLE, COSIGN):
        sign_image(target, key, kind, annotations={}, now=NOW)
    attach_launch_policy(target, LAUNCH, key)
    assert len(list(repository.signature_manifests(image.digest))) == 3
    assert len(list(repository.launch_policies(image.digest))) == 1
    assert verify_image(repository, image.digest, image.reference, rules, NOW).publisher == "team"
    store = Layout.create(tmp_path)
    fetched = fetch(repository, image.reference, store, image.reference)
    assert (fetched.signatures, fetched.launch_policies) == (3, 1)
    assert verify_image(store, image.digest, image.reference, rules, NOW).publisher == "team"
    assert list(store.launch_policies(image.digest)) == list(
        repository.launch_policies(image.digest)
    )


# One that tries everything -----------------------------------------------------------------


class Hostile:
    """Answers by path; remembers what it was asked."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                size = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(size)
                outer.asked.append((self.command, self.path, dict(self.headers)))
                status, headers, body = outer.answer(self.command, self.path, self.headers)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_HEAD = answer  # noqa: N815 - the library's names

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"

    def answer(self, method, path, headers):
        found = self.answers.get((method, path.partition("?")[0]), (404, {}, b""))
        return found(headers) if callable(found) else found


@contextmanager
def serving():
    hostile = Hostile()
    thread = threading.Thread(target=hostile.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hostile
    finally:
        hostile.server.shutdown()
        thread.join()
        hostile.server.server_close()


@pytest.fixture
def hostile():
    with serving() as running:
        yield running


@pytest.fixture
def strange(hostile):
    with Transport(hostile.host, plain_http=True) as transport:
        yield Registry(transport, f"{hostile.host}/a")


GOOD = oci.Manifest(
    schema_version=2,
    media_type=oci.IMAGE_MANIFEST,
    config=oci.Descriptor(media_type=oci.IMAGE_CONFIG, digest=oci.digest_of(b"{}"), size=2),
    layers=(),
).encode()
DIGEST = oci.digest_of(GOOD)


def test_content_that_does_not_hash_to_its_name_is_refused(hostile, strange):
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = (200, {}, b"else")
    hostile.answers["GET", f"/v2/a/manifests/{DIGEST}"] = (200, {}, b"else")
    with pytest.raises(AlteredBlob):
        strange.blobs.read(DIGEST, 100)
    with pytest.raises(AlteredBlob):
        strange.manifest(DIGEST)


def test_an_answer_beyond_its_limit_is_not_read(hostile, strange):
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = (200, {}, b"x" * 1000)
    hostile.answers["GET", "/v2/a/manifests/1"] = (200, {}, b"x" * (oci.MAX_MANIFEST + 1))
    with pytest.raises(FormatError):
        strange.blobs.read(DIGEST, 999)
    with pytest.raises(FormatError):
        strange.resolve(f"{hostile.host}/a:1")


@pytest.mark.parametrize("where", ["http://example.com/x", "ftp://127.0.0.1/x", "http://10.0.0.1/"])
def test_a_redirect_to_plain_http_elsewhere_is_refused(hostile, strange, where):
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = (307, {"Location": where}, b"")
    with pytest.raises(PlainHttp):
        strange.blobs.read(DIGEST, 100)


def test_a_redirect_is_followed_without_credentials_and_not_for_ever(hostile):
    with serving() as other:
        other.answers["GET", "/there"] = (200, {}, GOOD)
        there = {"Location": f"http://{other.host}/there"}
        round_and_round = {"Location": f"http://{hostile.host}/v2/a/blobs/{DIGEST}"}
        with Transport(
            hostile.host, plain_http=True, credentials=Credentials("me", "canary")
        ) as transport:
            source = Registry(transport, f"{hostile.host}/a")
            hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = basic((307, there, b""))
            assert source.blobs.read(DIGEST, 1000) == GOOD
            assert "Authorization" in hostile.asked[-1][2]
            assert all("Authorization" not in headers for _, _, headers in other.asked)
            hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = (307, round_and_round, b"")
            with pytest.raises(RegistryUnreachable):
                source.blobs.read(DIGEST, 1000)
    assert len(hostile.asked) < 20


def basic(answer):
    """Only with a name and a password."""

    def decide(headers):
        if headers.get("Authorization") == "Basic " + base64.b64encode(b"me:canary").decode():
            return answer
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""

    return decide


def bearer(answer, realm, scope="repository:a:pull"):
    """Only with a token."""

    def decide(headers):
        if headers.get("Authorization") == "Bearer T0ken":
            return answer
        challenge = f'Bearer realm="{realm}",service="s",scope="{scope}"'
        return 401, {"WWW-Authenticate": challenge}, b""

    return decide


def test_a_token_is_fetched_where_the_registry_says_and_used(hostile, strange):
    realm = f"http://{hostile.host}/token"
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = bearer((200, {}, GOOD), realm)
    hostile.answers["GET", "/token"] = (200, {}, b'{"token": "T0ken"}')
    assert strange.blobs.read(DIGEST, 1000) == GOOD
    asked = [path for _, path, _ in hostile.asked]
    assert asked[1] == "/token?service=s&scope=repository%3Aa%3Apull"
    assert strange.blobs.read(DIGEST, 1000) == GOOD
    assert len(hostile.asked) == 4


@pytest.mark.parametrize(
    "token", [(403, {}, b""), (200, {}, b"no"), (200, {}, b"{}"), (200, {}, b'{"token":"a\\nb"}'), (200, {}, b"x" * 70000)]
)  # fmt: skip
def test_a_token_service_that_gives_none_is_told(hostile, strange, token):
    realm = f"http://{hostile.host}/token"
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = bearer((200, {}, GOOD), realm)
    hostile.answers["GET", "/token"] = token
    with pytest.raises(RegistryDenied):
        strange.blobs.read(DIGEST, 1000)


def test_credentials_do_not_go_to_a_token_service_without_tls(hostile):
    answer = bearer((200, {}, GOOD), "http://example.com/token")
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = answer
    with (
        Transport(
            hostile.host, plain_http=True, credentials=Credentials("me", "canary")
        ) as transport,
        pytest.raises(PlainHttp),
    ):
        Registry(transport, f"{hostile.host}/a").blobs.read(DIGEST, 1000)


@pytest.mark.parametrize("headers", [{}, {"WWW-Authenticate": 'Basic realm="x"'}, {"WWW-Authenticate": "Negotiate"}])  # fmt: skip
@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_wants_other_credentials_is_told(hostile, strange, headers, status):
    hostile.answers["GET", f"/v2/a/blobs/{DIGEST}"] = (status, headers, b"")
    with pytest.raises(RegistryDenied):
        strange.blobs.read(DIGEST, 1000)


def test_uploads_do_not_go_elsewhere(hostile, strange):
    with serving() as other:
        where = {"Location": f"http://{other.host}/upload"}
        hostile.answers["POST", "/v2/a/blobs/uploads/"] = (202, where, b"")
        with pytest.raises(RegistryUnreachable):
            strange.add(b"content")
        assert not other.asked


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_upload_that_the_registry_refuses_is_told(hostile, strange, status):
    hostile.answers["POST", "/v2/a/blobs/uploads/"] = (status, {}, b"no\x1b[31m")
    hostile.answers["PUT", "/v2/a/manifests/1"] = (status, {}, b"no")
    with pytest.raises(RegistryUnreachable):
        strange.add(b"content")
    with pytest.raises(RegistryUnreachable):
        strange.put_manifest(GOOD, oci.IMAGE_MANIFEST, f"{hostile.host}/a:1")


def test_a_registry_that_lists_referrers_is_asked_and_needs_no_tag(hostile, strange):
    artifact = oci.Manifest(
        schema_version=2,
        media_type=oci.IMAGE_MANIFEST,
        config=oci.Descriptor(media_type=oci.EMPTY, digest=oci.digest_of(b"{}"), size=2),
        layers=(),
        subject=oci.Descriptor(media_type=oci.IMAGE_MANIFEST, digest=DIGEST, size=len(GOOD)),
    ).encode()
    digest = oci.digest_of(artifact)
    listed = oci.Index(
        schema_version=2,
        media_type=oci.IMAGE_INDEX,
        manifests=(attached.referrer_of(artifact, "x/y"),),
    )
    hostile.answers["GET", f"/v2/a/referrers/{DIGEST}"] = (200, {}, listed.encode())
    hostile.answers["GET", f"/v2/a/manifests/{digest}"] = (200, {}, artifact)
    hostile.answers["PUT", f"/v2/a/manifests/{digest}"] = (201, {}, b"")
    assert [one for one, _ in strange.referring(DIGEST)] == [digest]
    strange.attach(f"{hostile.host}/a:1", DIGEST, artifact, "x/y")
    written = [path for method, path, _ in hostile.asked if method == "PUT"]
    assert written == [f"/v2/a/manifests/{digest}"]


@pytest.mark.parametrize("listed", [b"", b"{}", b"[]", GOOD])
def test_a_list_of_referrers_that_cannot_be_read_lists_nothing(hostile, strange, listed):
    hostile.answers["GET", f"/v2/a/referrers/{DIGEST}"] = (200, {}, listed)
    assert list(strange.referring(DIGEST)) == []


def test_a_registry_that_is_not_there_is_unreachable():
    with serving() as gone:
        host = gone.host
    with Transport(host, plain_http=True) as transport, pytest.raises(RegistryUnreachable):
        Registry(transport, f"{host}/a").resolve(f"{host}/a:1")


def test_a_registry_that_fails_is_unreachable_not_empty(hostile, strange):
    hostile.answers["GET", "/v2/a/manifests/1"] = (500, {}, b"")
    with pytest.raises(RegistryUnreachable):
        strange.resolve(f"{hostile.host}/a:1")


# How it is reached -------------------------------------------------------------------------


@pytest.mark.parametrize("registry", ["registry.example.com", "10.0.0.1:5000", "127.0.0.1.example.com", "localhost.example.com:80"])  # fmt: skip
def test_plain_http_is_only_for_this_machine(registry):
    assert not is_loopback(registry)
    with pytest.raises(PlainHttp):
        Transport(registry, plain_http=True)


def test_without_plain_http_even_this_machine_must_have_tls(hostile):
    with Transport(hostile.host) as transport, pytest.raises(RegistryUnreachable):
        Registry(transport, f"{hostile.host}/a").resolve(f"{hostile.host}/a:1")


def auth_file(folder, content, mode=0o600):
    file = folder / "auth.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    file.chmod(mode)
    return file


def test_credentials_come_from_a_file_and_stay_out_of_sight(tmp_path, hostile):
    word = base64.b64encode(b"me:canary").decode()
    file = auth_file(tmp_path, {"auths": {hostile.host: {"auth": word}, "b": {}}})
    hostile.answers["GET", "/v2/a/manifests/1"] = basic((200, {}, GOOD))
    access = Access(plain_http=True, auth_file=file)
    with opened(f"{hostile.host}/a:1", access) as found:
        assert found.store.resolve(found.name) == DIGEST
        assert found.reference == f"{hostile.host}/a:1"
    assert "canary" not in repr(Credentials("me", "canary"))


@pytest.mark.parametrize("content", ["", "[]", {"auths": {"HOST": {"auth": "%"}}}, {"auths": {"HOST": {"auth": "bWU="}}}])  # fmt: skip
def test_a_file_of_credentials_that_cannot_be_read_is_told_without_its_content(
    tmp_path, hostile, content
):
    text = json.dumps(content) if isinstance(content, dict) else content
    file = auth_file(tmp_path, text.replace("HOST", hostile.host))
    with (
        pytest.raises(BadAuthFile),
        opened(f"{hostile.host}/a:1", Access(plain_http=True, auth_file=file)),
    ):
        pass


def test_a_file_of_credentials_that_others_may_read_is_refused(tmp_path, hostile):
    file = auth_file(tmp_path, {"auths": {}}, 0o644)
    with (
        pytest.raises(ExposedAuthFile),
        opened(f"{hostile.host}/a:1", Access(plain_http=True, auth_file=file)),
    ):
        pass


def test_an_image_in_a_layout_needs_a_repository_to_be_meant(tmp_path):
    with pytest.raises(NoRepository), opened(f"oci:{tmp_path}:latest", Access()):
        pass
    with opened(f"oci:{tmp_path}:latest", Access(), "a.example/b:1") as found:
        assert (found.name, found.reference) == ("latest", "a.example/b:1")
    with opened(f"oci:{tmp_path}:a.example/b:1", Access()) as found:
        assert (found.name, found.repository, found.tag) == ("a.example/b:1", "a.example/b", "1")
