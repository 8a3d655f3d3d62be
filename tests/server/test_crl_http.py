"""``/v1/crl`` as anybody gets it, and ``catena node revoke`` before it."""

from __future__ import annotations

import json

from cryptography import x509

from catena.cli.main import run
from server.live import *  # noqa: F403 - fixtures


def test_anybody_gets_the_list_with_its_media_type_and_may_keep_it_for_a_moment(standing):
    with standing.http() as http:
        response = http.get("/v1/crl")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/pkix-crl"
        assert response.headers["cache-control"] == "public, max-age=60"
        crl = x509.load_der_x509_crl(response.content)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        assert response.headers["etag"] == f'"{number}"'
        again = http.get("/v1/crl", headers={"if-none-match": f'W/"x", "{number}"'})
        assert (again.status_code, again.content) == (304, b"")
        assert http.post("/v1/crl").status_code == 405


def test_each_ca_of_the_bundle_has_its_list_at_a_path_of_its_own(standing):
    with standing.http() as http:
        (path,) = http.get("/v1/bundle").json()["catena_crls"]
        own = http.get(path)
        assert (own.status_code, own.content) == (200, http.get("/v1/crl").content)
        assert own.headers["content-type"] == "application/pkix-crl"
        unknown = http.get(f"/v1/crl/{'0' * 64}")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown-authority")


def test_revoke_and_rotation_from_the_command_line(trusting_running, machine, capsys):
    options = trusting_running.options
    with trusting_running.http() as http:
        machine.enrol(trusting_running.call(http))
    words = ["node", "revoke", machine.node_id[:8], "--reason", "stolen"]
    assert run([*words, *options, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"]
    assert run([*words, *options]) == 0
    assert "revoked already" in capsys.readouterr().out
    assert run(["secret", "rotation", *options]) == 0
    assert capsys.readouterr().out == "no secret needs to be rotated\n"
    assert run(["node", "revoke", "nobody", "--reason", "x", *options]) == 12
    assert run(["node", "revoke", machine.node_id[:8], *options]) == 2
    capsys.readouterr()
