"""Who may read the policy in force, and who may replace it."""

from __future__ import annotations

from catena.appraise.policy import default_policy_text
from catena.formats.policies import POLICY_TYPE, PolicyDocument
from service.fixtures import signed

VIEWER = "catena_viewer"


def envelope(api):
    document = PolicyDocument(name="strict", version=1, text=default_policy_text())
    return signed(api.server.keys, POLICY_TYPE, document)


def test_a_viewer_reads_the_policy_and_may_not_replace_it(api):
    assert api.admin("GET", "/policy", token=VIEWER).json()["current"]["version"] == 0
    assert api.admin("POST", "/policy", envelope(api), token=VIEWER).status_code == 403
    assert api.admin("GET", "/policy", token=VIEWER).json()["current"]["version"] == 0


def test_an_admin_replaces_it_once(api):
    applied = api.admin("POST", "/policy", envelope(api))
    assert (applied.status_code, applied.json()["version"]) == (200, 1)
    again = api.admin("POST", "/policy", envelope(api))
    assert (again.status_code, again.json()["code"]) == (409, "policy-rollback")


def test_nobody_reads_or_replaces_it_without_a_token(api):
    assert api.http.get("/v1/admin/policy").status_code == 401
    assert api.http.post("/v1/admin/policy", content=envelope(api)).status_code == 401
