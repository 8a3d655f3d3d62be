from __future__ import annotations

import json
import re
import sqlite3

import msgspec
import pytest

from catena.formats.nodeapi import ErrorBody, NonceRequest
from catena.service.bearer import token_hash
from catena.service.views import (
    ApprovalRequest,
    CaptureRequest,
    CaptureView,
    ExplanationView,
    NodeView,
    ReferenceDetail,
    ReferenceView,
    Removed,
    SecretRequest,
    SecretView,
)
from service.fixtures import PASSWORD
from swtpm import needs_swtpm

READS = ("/nodes", "/nodes/n1", "/nodes/n1/explanation", "/nodes/n1/capture", "/secrets")
READS += ("/references", "/references/lab")
WRITES = (
    ("POST", "/nodes/n1/approval"),
    ("POST", "/captures"),
    ("PUT", "/secrets/db"),
    ("DELETE", "/secrets/db"),
    ("POST", "/references"),
    ("DELETE", f"/people/{'0' * 64}"),
    ("GET", "/people"),  # whose names these are is not everybody's to know
)
NODE_PATHS = ("/v1/enroll", "/v1/enroll/activate", "/v1/nonce", "/v1/attest")


def error(response) -> ErrorBody:
    return msgspec.json.decode(response.content, type=ErrorBody)


def answer(response, kind):
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=kind)


@needs_swtpm
@pytest.mark.tpm
def test_the_whole_way_over_http(trusting_api, machine):
    api = trusting_api
    request = SecretRequest(roles=("web",), value=PASSWORD)
    assert answer(api.admin("PUT", "/secrets/db", request), SecretView).version == 1
    machine.enrol(api.call)
    machine.attest(api.call)
    node = f"/nodes/{machine.node_id[:10]}"

    seen = answer(api.admin("GET", f"{node}/capture"), CaptureView)
    wanted = CaptureRequest(node=seen.node, name="ovmf", boot_log=seen.boot_log)
    assert answer(api.admin("POST", "/captures", wanted), ReferenceView).kind == "firmware"
    approval = ApprovalRequest(name="n1", role="web")
    assert answer(api.admin("POST", f"{node}/approval", approval), NodeView).name == "n1"
    result = machine.attest(api.call)
    assert (result.state, machine.open(result.secrets[0])) == ("trusted", PASSWORD)
    explained = answer(api.admin("GET", "/nodes/n1/explanation"), ExplanationView)
    assert explained.verdict == "trusted"
    assert all(event.claimed_by for event in explained.events)
    removed = answer(api.admin("DELETE", "/secrets/db"), Removed)
    assert removed.held_by == ("n1",)
    assert PASSWORD.decode() not in "".join(api.lines)


@needs_swtpm
@pytest.mark.tpm
def test_missing_logs_are_a_conflict_that_names_them(trusting_api, machine):
    machine.enrol(trusting_api.call)
    evidence = machine.evidence(machine.nonce(trusting_api.call), logs={})
    response = trusting_api.http.post("/v1/attest", content=msgspec.json.encode(evidence))
    assert (response.status_code, error(response).code) == (409, "logs-missing")
    assert error(response).missing_logs == tuple(log.sha256 for log in evidence.manifest)


def test_health_needs_no_token(api):
    assert api.http.get("/healthz").json() == {"status": "ok"}


def test_an_unknown_node_has_its_own_code(api):
    body = msgspec.json.encode(NonceRequest(node_id="0" * 64))
    response = api.http.post("/v1/nonce", content=body)
    assert (response.status_code, error(response).code) == (404, "unknown-node")


@pytest.mark.parametrize("path", READS)
def test_reading_without_a_token_is_refused(api, path):
    response = api.http.get(f"/v1/admin{path}")
    assert (response.status_code, error(response).code) == (401, "unauthenticated")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_writing_without_a_token_is_refused_before_the_body_is_read(api, method, path):
    response = api.http.request(method, f"/v1/admin{path}", content=b"x" * 1000)
    assert (response.status_code, error(response).code) == (401, "unauthenticated")


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic {}", "bearer x{}", "Bearer {}x", "{}", "Bearer {hash}"],
)
def test_no_other_header_than_the_token_itself_opens_the_door(api, header):
    token = api.server.token
    value = header.replace("{hash}", token_hash(token)).replace("{}", token)
    response = api.http.get("/v1/admin/nodes", headers={"authorization": value})
    assert response.status_code == 401


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_viewer_may_not_write(api, method, path):
    before = api.server.kinds()
    response = api.admin(method, path, b"{}", token="catena_viewer")
    assert (response.status_code, error(response).code) == (403, "forbidden")
    assert api.server.kinds() == before


def test_a_viewer_may_read(api):
    assert api.admin("GET", "/nodes", token="catena_viewer").json() == []


@pytest.mark.parametrize("path", NODE_PATHS)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"x": 1}', b"\xff\xfe", b'"\\ud800"'])
def test_malformed_bodies_are_400_with_a_code(api, path, body):
    response = api.http.post(path, content=body)
    assert (response.status_code, error(response).code) == (400, "malformed")


def test_malformed_admin_bodies_are_400(api):
    response = api.admin("PUT", "/secrets/db", b'{"roles": ["a/b"], "value": "eA=="}')
    assert (response.status_code, error(response).code) == (400, "malformed")


def test_unknown_paths_and_methods_are_json_errors(api):
    response = api.http.get("/no/such/path")
    assert (response.status_code, error(response).code) == (404, "no-such-route")
    response = api.http.get("/v1/attest")
    assert (response.status_code, error(response).code) == (405, "wrong-method")
    response = api.http.post("/v1/nonce/", content=b"{}")
    assert (response.status_code, error(response).code) == (404, "no-such-route")


def test_failures_on_our_side_do_not_leak_details(api):
    with sqlite3.connect(api.server.folder / "catena.db") as other:
        other.execute("ALTER TABLE secrets RENAME TO gone")
    other.close()
    response = api.admin("GET", "/secrets")
    assert (response.status_code, error(response).code) == (503, "database-gone")
    assert "OperationalError" not in response.text
    assert "sql" not in response.text.lower()
    assert any("OperationalError" in line for line in api.lines)


def test_a_defect_is_a_500_whose_text_stays_inside(api):
    def broken(_):
        raise RuntimeError("secret text")

    api.server.service.nodes.page = broken
    # Routes hold the verb's owner, so that this reaches the application.
    response = api.admin("GET", "/nodes")
    assert (response.status_code, error(response).code) == (500, "internal")
    assert "secret text" not in response.text + "".join(api.lines)
    assert any("RuntimeError" in line for line in api.lines)


def test_an_unwritable_log_is_503_and_says_nothing_changed(api):
    assert api.admin("GET", "/secrets").json() == []  # notes the use of the token
    (api.server.folder / "log/checkpoint.new").unlink(missing_ok=True)
    (api.server.folder / "log/checkpoint.new").mkdir()
    request = SecretRequest(roles=("web",), value=b"x")
    response = api.admin("PUT", "/secrets/db", request)
    assert (response.status_code, error(response).code) == (503, "log-unwritable")
    assert api.admin("GET", "/secrets").json() == []


def test_nothing_a_client_sends_reaches_the_access_log_unescaped(api):
    api.http.post("/v1/nonce%1b[31m%0a%e2%80%ae%ff", content=b'{"node_id": "\\u001b[31m"}')
    api.http.request("GE" + "T" * 40, "/x")
    for line in api.lines:
        assert line.endswith("\n")
        assert line[:-1].isascii()
        assert line[:-1].isprintable()
        assert json.loads(line)["event"] in {"request", "fault"}


def test_every_refusal_is_problem_details(api):
    response = api.admin("GET", "/nodes/none")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == "urn:catena:error:unknown-node"
    assert (problem["status"], problem["title"]) == (404, "Unknown node")
    assert problem["detail"]
    assert problem["remedy"]


def test_a_plain_request_id_is_taken_over_and_stands_in_answer_and_log(api):
    response = api.http.get("/v1/admin/nodes", headers={"x-request-id": "trace-7.A_b"})
    assert response.headers["x-request-id"] == "trace-7.A_b"
    assert error(response).request_id == "trace-7.A_b"
    assert json.loads(api.lines[-1])["request"] == "trace-7.A_b"


@pytest.mark.parametrize("given", [None, "", "a" * 65, "a b", "a\tb", 'x"y', "é".encode()])
def test_any_other_request_id_is_replaced(api, given):
    headers = {} if given is None else {"x-request-id": given}
    response = api.http.get("/healthz", headers=headers)
    made = response.headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{24}", made)
    assert api.http.get("/healthz").headers["x-request-id"] != made


def test_two_request_ids_are_none(api):
    response = api.http.get("/healthz", headers=[("x-request-id", "a"), ("x-request-id", "b")])
    assert response.headers["x-request-id"] not in {"a", "b"}


def test_a_fault_of_ours_is_found_by_the_request_id_of_its_answer(api):
    def broken(_):
        raise RuntimeError

    api.server.service.nodes.page = broken
    response = api.admin("GET", "/nodes")
    fault = next(json.loads(line) for line in api.lines if '"fault"' in line)
    assert fault["request"] == error(response).request_id == response.headers["x-request-id"]


def test_answers_are_never_cached(api):
    assert api.http.get("/v1/admin/nodes").headers["cache-control"] == "no-store"
    assert api.admin("GET", "/nodes").headers["cache-control"] == "no-store"


def test_quirk_rules_stand_beside_the_accepted_references(api):
    listed = answer(api.admin("GET", "/references"), tuple[ReferenceView, ...])
    assert [one.kind for one in listed] == ["quirk"] * len(listed)
    assert listed
    found = answer(api.admin("GET", f"/references/{listed[0].name}"), ReferenceDetail)
    assert found.reference == listed[0]
