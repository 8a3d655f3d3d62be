from __future__ import annotations

import json

import pytest

from appraise.gatelog import POLICY, Recording
from catena.cli import node
from catena.cli.main import run
from catena.formats.containerpolicy import CONTAINER_POLICY_TYPE
from catena.service.views import ContainersView
from server.live import *  # noqa: F403 - fixtures
from service.fixtures import signed
from swtpm import needs_swtpm


def as_json(capsys, *words: str) -> object:
    assert run([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@needs_swtpm
@pytest.mark.tpm
def test_a_newcomers_first_machine(trusting_running, machine, capsys):
    live = trusting_running
    with live.http() as http:
        call = live.call(http)
        machine.enrol(call)
        machine.attest(call)

        assert run(["node", "list", *live.options]) == 0
        assert "awaiting-approval" in capsys.readouterr().out

        short = machine.node_id[:8]
        explained = as_json(capsys, "node", "explain", short, *live.options)
        assert explained["verdict"] == "untrusted"
        for event in explained["events"]:
            assert {"pcr", "type", "digest", "claimed_by"} <= event.keys()
            assert (event["claimed_by"] is None) == bool(event["why"])
        assert any(event["claimed_by"] is None for event in explained["events"])

        assert run(["reference", "capture", short, "--name", "ovmf", "--yes", *live.options]) == 0
        assert run(["node", "approve", short, "--name", "n1", "--role", "web", *live.options]) == 0
        capsys.readouterr()
        assert machine.attest(call).state == "trusted"

    shown = as_json(capsys, "node", "show", "n1", *live.options)
    assert (shown["state"], shown["last_verdict"], shown["reasons"]) == ("trusted", "trusted", [])
    assert shown["certificate_expires"]
    assert run(["node", "explain", "n1", *live.options]) == 0
    story = capsys.readouterr().out
    assert "0 unaccounted for" in story
    assert "✗" not in story
    assert run(["node", "show", "n1", *live.options]) == 0
    assert "(untrusted)" in capsys.readouterr().out


def test_an_unknown_node_is_exit_code_12(standing, capsys):
    for verb in ("show", "explain"):
        assert run(["node", verb, "nobody", *standing.options]) == 12
    assert run(["node", "approve", "nobody", "--name", "x", "--role", "y", *standing.options]) == 12
    assert "unknown-node" in capsys.readouterr().err


def test_an_empty_fleet_says_so(standing, capsys):
    assert run(["node", "list", *standing.options]) == 0
    assert capsys.readouterr().out == "no nodes have enrolled\n"


@pytest.mark.parametrize("name", ["../secrets", "a/b", "", "a?b", "..", "a b"])
def test_what_was_typed_stays_one_segment_of_the_path(standing, capsys, name):
    assert run(["node", "show", name, *standing.options]) == 3
    assert "no-such-name" in capsys.readouterr().err


def test_server_ca_and_token_come_from_the_environment_too(standing, capsys, monkeypatch):
    _, url, _, ca, _, token = standing.options
    monkeypatch.setenv("CATENA_SERVER", url)
    monkeypatch.setenv("CATENA_CA", ca)
    monkeypatch.setenv("CATENA_TOKEN_FILE", token)
    assert as_json(capsys, "node", "list") == []


def test_a_profile_names_server_and_ca(standing, capsys, tmp_path):
    profile = tmp_path / "admin.toml"
    profile.write_text(f'server = "{standing.url}"\nca = "{standing.options[3]}"\n')
    token = standing.options[5]
    words = ["node", "list", "--profile", str(profile), "--token-file", token]
    assert as_json(capsys, *words) == []


@pytest.mark.parametrize(
    ("change", "exit_code", "code"),
    [
        (lambda o: [], 2, "no-server-named"),
        (lambda o: o[:4], 2, "no-token"),
        (lambda o: [*o[:5], "/no/such/token"], 2, "no-token"),
        (lambda o: [*o[:3], "/no/such/ca", *o[4:]], 2, "no-server-named"),
        (lambda o: [o[0], "https://127.0.0.1:1", *o[2:]], 1, "server-unreachable"),
        (lambda o: ["--profile", "/no/such/profile"], 2, "no-server-named"),
    ],
)
def test_wrong_connections_are_clear_errors(standing, capsys, change, exit_code, code):
    assert run(["node", "list", *change(standing.options), "-o", "json"]) == exit_code
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_a_server_of_another_ca_is_not_spoken_to(standing, capsys, tmp_path):
    from datetime import UTC, datetime

    from catena.keys import hierarchy

    other = hierarchy.init(tmp_path / "other", organisation="Eve", now=datetime.now(UTC))
    options = standing.options
    options[3] = str(other.path / "ca.crt")
    assert run(["node", "list", *options]) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


def test_an_exposed_or_wrong_token_is_refused(running, capsys, tmp_path):
    options = running.options
    token = tmp_path / "token"
    token.chmod(0o644)
    assert run(["node", "list", *options]) == 10
    assert "exposed-token" in capsys.readouterr().err
    token.chmod(0o600)
    token.write_text("catena_wrong")
    assert run(["node", "list", *options]) == 10
    assert "unauthenticated" in capsys.readouterr().err


def test_a_tenants_containers_are_told_under_its_index(capsys):
    view = ContainersView(
        nv_index="0x01800f01",
        records=2,
        started=0,
        executed=0,
        refused=0,
        unverified=0,
        gate_restarts=0,
        policy="acme@1",
        omitted=2,
        events=(),
    )
    node._render_containers(view)
    told = capsys.readouterr().out
    assert "0 unverified; policy acme@1 (tenant of NV index 0x01800f01)" in told


@needs_swtpm
@pytest.mark.tpm
def test_explain_tells_what_ran_in_containers(
    trusting_running, running_machine, keys, capsys, tmp_path
):
    live, machine = trusting_running, running_machine
    document = tmp_path / "containers.dsse.json"
    document.write_bytes(signed(keys, CONTAINER_POLICY_TYPE, POLICY))
    assert run(["reference", "import", str(document), *live.options]) == 0
    assert run(["reference", "show", "acme-containers@1", *live.options]) == 0
    assert "registry.acme.example/*  acme" in capsys.readouterr().out
    machine.record(Recording().begun().create().deny().create("x", publisher="guest"))
    with live.http() as http:
        machine.enrol(live.call(http))
        machine.attest(live.call(http))
    assert run(["node", "explain", machine.node_id[:8], *live.options]) == 0
    story = capsys.readouterr().out.partition("containers  ")[2]
    told = story.splitlines()
    assert told[0] == "2 started, 1 refused, 1 unverified; policy acme-containers@1"
    marks = [line[0] for line in told if line[:1] in ("✓", "–", "✗") and "Z  " in line]
    assert marks == ["✓", "✓", "✓", "–", "✗"]
    words = " ".join(story.split())
    assert "image-unsigned" in words
    assert "(cosign-legacy)" in words
    as_told = as_json(capsys, "node", "explain", machine.node_id[:8], *live.options)["containers"]
    assert [event["kind"] for event in as_told["events"]][2:] == ["create", "deny", "create"]
