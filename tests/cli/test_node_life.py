"""`catena node` from the list of expected machines to the end of a node, against a running server."""

from __future__ import annotations

import json

import pytest

from catena.cli.main import run
from server.live import *  # noqa: F403 - fixtures
from swtpm import needs_swtpm


def as_json(capsys, *words: str) -> object:
    assert run([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_machines_are_imported_whole_or_not_at_all(running, capsys, tmp_path):
    options, path = running.options, tmp_path / "machines.csv"
    path.write_text("name,role,ek_sha256\nedge-1,edge,12\nEDGE,edge,34\n")
    assert run(["node", "import", str(path), *options]) == 14
    told = capsys.readouterr().err
    assert "line 2" in told
    assert "line 3" in told

    path.write_text(f"name,role,site,ek_sha256\nedge-1,edge,berlin,{'12' * 32}\n")
    assert run(["node", "import", str(path), "--dry-run", *options]) == 0
    assert "1 machines would be expected" in capsys.readouterr().out
    assert as_json(capsys, "node", "expected", *options) == []
    done = as_json(capsys, "node", "import", str(path), *options)
    assert done == {"added": 1, "unchanged": 0, "dry_run": False}
    assert run(["node", "expected", *options]) == 0
    assert "berlin" in capsys.readouterr().out

    path.write_text(f'[{{"name": "edge-1", "role": "edge", "ek_sha256": "{"34" * 32}"}}]')
    assert run(["node", "import", str(path), *options]) == 2
    assert "inventory-conflict" in capsys.readouterr().err
    assert run(["node", "unlist", "edge-1", *options]) == 0
    assert run(["node", "unlist", "edge-1", *options]) == 3
    assert "not-listed" in capsys.readouterr().err


def test_a_list_that_is_not_there_is_not_found(standing, capsys, tmp_path):
    assert run(["node", "import", str(tmp_path / "none.csv"), *standing.options]) == 3
    assert "no-such-list" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["web-1", "--all"], ["--role", "web", "--all"]])
def test_a_demand_says_who_is_meant(standing, capsys, words):
    assert run(["node", "attest", *words, *standing.options]) == 2
    assert "nobody-meant" in capsys.readouterr().err


def test_what_is_not_there_cannot_end(standing, capsys):
    options = standing.options
    for verb in ("retire", "reject"):
        assert run(["node", verb, "nobody", "--reason", "x", *options]) == 12
    assert run(["node", "replace", "nobody", "--with", "ab", *options]) == 12
    assert run(["node", "attest", "nobody", *options]) == 12
    assert run(["node", "attest", "--all", *options]) == 2
    assert "nothing-to-demand" in capsys.readouterr().err


@needs_swtpm
@pytest.mark.tpm
def test_a_machine_is_rejected_taken_back_demanded_and_retired(trusting_running, machine, capsys):
    live = trusting_running
    options = live.options
    with live.http() as http:
        machine.enrol(live.call(http))
        short = machine.node_id[:8]
        assert run(["node", "list", "--state", "pending", *options]) == 0
        queue = capsys.readouterr().out
        assert machine.node_id in queue
        assert "call-me-root" in queue

        assert run(["node", "reject", short, "--reason", "who is it?", *options]) == 0
        assert "is retired (who is it?)" in capsys.readouterr().out
        assert as_json(capsys, "node", "list", *options) == []
        (gone,) = as_json(capsys, "node", "list", "--all", *options)
        assert (gone["state"], gone["state_reason"]) == ("retired", "who is it?")
        answer = http.post("/v1/nonce", json={"node_id": machine.node_id})
        assert (answer.status_code, answer.json()["code"]) == (403, "retired-node")

        assert run(["node", "approve", short, "--name", "n1", "--role", "web", *options]) == 0
        capsys.readouterr()
        demand = {"node_id": machine.node_id}
        assert http.post("/v1/demand", json=demand).json() == {"attest": False}
        assert as_json(capsys, "node", "attest", "--role", "web", *options)["nodes"] == 1
        assert http.post("/v1/demand", json=demand).json() == {"attest": True}
        result = machine.attest(live.call(http))
        assert result.poll == 10
        assert http.post("/v1/demand", json=demand).json() == {"attest": False}
        assert http.post("/v1/demand", json={"node_id": "0" * 64}).json() == {"attest": False}

    done = as_json(capsys, "node", "retire", "n1", "--reason", "sold", *options)
    assert (done["node"]["former_name"], done["secrets"]) == ("n1", [])
    assert run(["node", "retire", short, "--reason", "sold", *options]) == 2
    assert "already-retired" in capsys.readouterr().err
