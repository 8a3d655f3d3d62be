"""OCI documents and references: strict where it matters, and the same to every reader."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hostile import bit_flips, refuses_cleanly
from hypothesis import given
from hypothesis import strategies as st

from catena.errors import FormatError
from catena.formats import ijson, oci
from catena.formats.oci import Descriptor, Index, Manifest

DIGEST = oci.digest_of(b"content")
DESCRIPTOR = Descriptor(media_type=oci.IMAGE_CONFIG, digest=DIGEST, size=7)
MANIFEST = Manifest(
    schema_version=2,
    media_type=oci.IMAGE_MANIFEST,
    artifact_type="x/y",
    config=DESCRIPTOR,
    layers=(DESCRIPTOR,),
    subject=DESCRIPTOR,
    annotations={"a": "b"},
)
INDEX = Index(schema_version=2, media_type=oci.IMAGE_INDEX, manifests=(DESCRIPTOR,))


def changed(document, **members):
    """The document as JSON with members replaced, or removed where None."""
    plain = {**json.loads(document.encode()), **members}
    return json.dumps({name: value for name, value in plain.items() if value is not None}).encode()


def test_a_manifest_survives_its_encoding():
    assert oci.parse_manifest(MANIFEST.encode()) == MANIFEST
    assert MANIFEST.kind == "x/y"
    assert oci.parse_manifest(changed(MANIFEST, artifactType=None)).kind == oci.IMAGE_CONFIG


def test_an_index_survives_its_encoding():
    assert oci.parse_index(INDEX.encode()) == INDEX


def test_members_that_nobody_knows_are_ignored():
    assert oci.parse_manifest(changed(MANIFEST, extra={"a": 1})) == MANIFEST


def test_a_manifest_without_a_media_type_is_one():
    assert oci.parse_manifest(changed(MANIFEST, mediaType=None)).media_type == ""


@pytest.mark.parametrize(
    "members",
    [
        {"schemaVersion": 1},
        {"schemaVersion": None},
        {"schemaVersion": "2"},
        {"mediaType": oci.IMAGE_INDEX},
        {"mediaType": "text/plain"},
        {"config": None},
        {"layers": None},
        {"layers": {}},
        {"manifests": []},
        {"subject": {}},
        {"annotations": {"a": 1}},
        {"annotations": {str(n): "" for n in range(oci.MAX_ANNOTATIONS + 1)}},
    ],
)
def test_a_manifest_is_refused_with(members):
    with pytest.raises(FormatError):
        oci.parse_manifest(changed(MANIFEST, **members))


@pytest.mark.parametrize("members", [{"layers": []}, {"config": {}}, {"manifests": None}, {"schemaVersion": 3}, {"mediaType": oci.IMAGE_MANIFEST}])  # fmt: skip
def test_an_index_is_refused_with(members):
    with pytest.raises(FormatError):
        oci.parse_index(changed(INDEX, **members))


def test_a_document_that_is_a_manifest_and_an_index_is_neither():
    both = {
        **json.loads(changed(MANIFEST, mediaType=None)),
        **json.loads(changed(INDEX, mediaType=None)),
    }
    for parse in (oci.parse_manifest, oci.parse_index):
        with pytest.raises(FormatError, match="at once"):
            parse(json.dumps(both).encode())


@pytest.mark.parametrize("members", [{"digest": "sha256:" + "A" * 64}, {"digest": "sha512:" + "0" * 128}, {"digest": "md5:0"}, {"digest": DIGEST + "\n"}, {"size": -1}, {"size": 2**51}, {"size": 1.5}, {"mediaType": "x" * 256}])  # fmt: skip
def test_a_descriptor_is_refused_with(members):
    plain = {**json.loads(msgspec.json.encode(DESCRIPTOR)), **members}
    for place in ({"config": plain}, {"layers": [plain]}, {"subject": plain}):
        with pytest.raises(FormatError):
            oci.parse_manifest(changed(MANIFEST, **place))


def test_a_name_that_occurs_twice_is_refused_wherever_it_is():
    good = MANIFEST.encode().decode()
    for twice in (
        good.replace('"size":7', '"size":7,"size":8', 1),
        good.replace('"a":"b"', '"a":"b","\\u0061":"c"'),
        good.replace('{"schemaVersion"', '{"x":{"y":1,"y":1},"schemaVersion"'),
    ):
        with pytest.raises(FormatError, match="twice"):
            oci.parse_manifest(twice.encode())


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"{} {}", b'"\\ud800"', b"NaN", b"\xff", b"[" * 100000])  # fmt: skip
def test_what_is_no_document_is_refused(data):
    for parse in (oci.parse_manifest, oci.parse_index, oci.parse_layout):
        with pytest.raises(FormatError):
            parse(data)


@pytest.mark.parametrize("data", [b'{"a":NaN}', b'{"a":Infinity}', b'{"a":"\\udc00"}', b'{"a":1}x', b'{"a":1,"a":1}'])  # fmt: skip
def test_what_readers_disagree_about_is_no_ijson(data):
    with pytest.raises(FormatError):
        ijson.decode(data, dict, limit=100, what="document")


def test_a_document_beyond_its_limit_is_refused_unread():
    with pytest.raises(FormatError, match="too large"):
        ijson.decode(b" " * 101, dict, limit=100, what="document")
    with pytest.raises(FormatError, match="too large"):
        oci.parse_manifest(b" " * (oci.MAX_MANIFEST + 1))


def test_more_layers_than_an_image_has_are_refused():
    plain = json.loads(msgspec.json.encode(DESCRIPTOR))
    with pytest.raises(FormatError):
        oci.parse_manifest(changed(MANIFEST, layers=[plain] * (oci.MAX_LAYERS + 1)))


def test_another_version_of_layouts_is_refused():
    oci.parse_layout(b'{"imageLayoutVersion":"1.0.0"}')
    with pytest.raises(FormatError):
        oci.parse_layout(b'{"imageLayoutVersion":"1.0.1"}')


@pytest.mark.parametrize("parse", [oci.parse_manifest, oci.parse_index])
def test_a_document_cut_anywhere_or_with_a_flipped_bit_is_refused_or_read(parse):
    data = (MANIFEST if parse is oci.parse_manifest else INDEX).encode()
    for end in range(len(data)):
        with pytest.raises(FormatError):
            parse(data[:end])
    assert all(refuses_cleanly(parse, flipped) for flipped in bit_flips(data))


# References --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "repository", "tag", "digest"),
    [
        ("registry.example.com/app", "registry.example.com/app", "", None),
        ("registry.example.com/a/b/c:1.4", "registry.example.com/a/b/c", "1.4", None),
        ("localhost/app", "localhost/app", "", None),
        ("localhost:5000/app:v1", "localhost:5000/app", "v1", None),
        ("127.0.0.1:5000/a_b/c--d:x", "127.0.0.1:5000/a_b/c--d", "x", None),
        (f"a.example/b@{DIGEST}", "a.example/b", "", DIGEST),
        (f"a.example/b:1@{DIGEST}", "a.example/b", "1", DIGEST),
        ("index.docker.io/library/alpine", "docker.io/library/alpine", "", None),
    ],
)
def test_a_reference_is_read(text, repository, tag, digest):
    found = oci.parse_reference(text)
    assert (found.repository, found.tag, found.digest) == (repository, tag, digest)
    assert oci.parse_reference(str(found)) == found


@pytest.mark.parametrize("text", ["", "app", "team/app", "alpine:3", "a.example", "a.example/", "a.example/:1", "a.example/B", "A.example/b", "a.example/b:", "a.example/b:1:2", "a.example/b@", "a.example/b@sha256:0", f"a.example/b@{DIGEST}x", "a.example//b", "a.example/b/", "a.example/../b", "a.example/b c", "http://a.example/b", "a.example/b:1\n", "a.example/b\n", "a.example:x/b", "-a.example/b", "a.example/-b", "a.example/" + "b" * 256, "ä.example/b", "a.example/b:" + "1" * 129, "*.example/b"])  # fmt: skip
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(FormatError):
        oci.parse_reference(text)


@given(st.text(alphabet="ab.:/@-_15", max_size=30))
def test_any_text_is_a_reference_that_reads_the_same_again_or_refused(text):
    with contextlib.suppress(FormatError):
        found = oci.parse_reference(text)
        assert oci.parse_reference(str(found)) == found
