"""Whom a node believes through a rotation of the cluster CA."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from stand_in import DAY, ClusterCa, StandIn
from test_daemon import Node

from catena.agent import trust
from catena.agent.config import AgentConfig
from catena.errors import FormatError, Unavailable
from swtpm import needs_swtpm


def pem(*authorities: ClusterCa) -> str:
    return "".join(one.certificate.public_bytes(Encoding.PEM).decode() for one in authorities)


def present(service: StandIn, authority: ClusterCa, folder: Path) -> None:
    """Let the stand-in's TLS be vouched for by another authority."""
    folder.mkdir(exist_ok=True)
    authority.server_context(folder, not_before=datetime.now(UTC) - DAY, lifetime=2 * DAY)
    service.context.load_cert_chain(folder / "server.pem")


@pytest.fixture
def successor() -> ClusterCa:
    return ClusterCa(datetime.now(UTC) - DAY)


@pytest.mark.tpm
@needs_swtpm
def test_a_node_goes_through_every_phase_without_a_round_that_fails(
    config: AgentConfig, service: StandIn, cluster_ca, successor, tmp_path
):
    node = Node(config)
    node.step()
    service.bundle = pem(cluster_ca, successor)  # announced
    node.step()
    service.ca = successor  # the new one issues, the old still vouches for the server
    node.step()
    assert (node.folder / "current/node.crt").exists()
    service.bundle = pem(successor)
    node.step()
    present(service, successor, tmp_path / "new")  # the old one is dropped
    node.step()
    Node(config).step()  # and the agent was started again
    assert node.events("failed") == []
    assert [one["count"] for one in node.events("authorities-changed")] == [2, 1]
    present(service, cluster_ca, tmp_path / "old")  # whoever has the old key is nobody now
    node.step()
    assert [one["code"] for one in node.events("failed")] == ["untrusted-server"]


@pytest.mark.tpm
@needs_swtpm
def test_a_node_that_slept_through_the_switch_learns_with_the_answer(
    config: AgentConfig, service: StandIn, cluster_ca, successor
):
    service.ca, service.bundle = successor, pem(cluster_ca, successor)
    node = Node(config)
    node.step()
    assert node.events("failed") == []
    assert node.held() == {"node.crt", "node.key"}


@pytest.mark.tpm
@needs_swtpm
def test_a_certificate_of_an_authority_that_nobody_named_is_refused(
    config: AgentConfig, service: StandIn, cluster_ca, successor
):
    service.ca = successor
    node = Node(config)
    node.step()
    service.bundle = pem(cluster_ca)
    node.step()
    assert [one["code"] for one in node.events("failed")] == ["foreign-certificate"] * 2


@pytest.mark.tpm
@needs_swtpm
def test_a_bundle_that_is_none_changes_nothing(config, service, ca_file):
    node = Node(config)
    node.step()
    service.bundle = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    node.step()
    assert [one["code"] for one in node.events("failed")] == ["malformed"]
    assert trust.authorities_file(config.ca, config.runtime_dir) == ca_file


def test_whoever_configures_another_authority_means_that_one(tmp_path, ca_file, successor):
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    assert trust.keep(ca_file, run, pem(successor))
    assert not trust.keep(ca_file, run, pem(successor))
    learned = trust.authorities_file(ca_file, run)
    assert trust.load(learned) == (successor.certificate,)
    assert learned.stat().st_mode & 0o077 == 0
    ca_file.write_text(pem(successor))
    assert trust.authorities_file(ca_file, run) == ca_file


def test_what_cannot_be_read_or_is_no_certificate_is_an_error(tmp_path):
    with pytest.raises(Unavailable):
        trust.load(tmp_path / "none")
    for content in (b"", b"no certificate"):
        with pytest.raises(FormatError):
            trust.parse(content)
