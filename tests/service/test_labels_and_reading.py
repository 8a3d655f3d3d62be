"""Who may have a secret, who holds it, and who read it."""

from __future__ import annotations

import pytest

from catena.service.labels import TooManyLabels
from catena.service.secrets import NewestVersion, NoAudience, NoSuchSecret
from catena.service.views import LabelsRequest, SecretReading, SecretRequest
from service.fixtures import PASSWORD, Server, put_secret
from service.revocable import *  # noqa: F403 - fixtures
from service.revocable import revoke
from swtpm import needs_swtpm


def label(server: Server, *labels: str, remove: tuple[str, ...] = ()):
    return server.service.labels.label("n1", LabelsRequest(labels=labels, remove=remove), "alice")


def put(server: Server, name: str, *, roles: tuple[str, ...] = (), labels: tuple[str, ...] = ()):
    request = SecretRequest(roles=roles, labels=labels, value=PASSWORD)
    return server.service.secrets.put(name, request, "alice")


@needs_swtpm
@pytest.mark.tpm
def test_a_secret_goes_to_nodes_with_one_of_its_roles_and_all_of_its_labels(admitted, machine):
    put(admitted, "any-role", labels=("rack=7",))
    put(admitted, "both", roles=("db", "web"), labels=("rack=7", "environment=production"))
    put(admitted, "other-role", roles=("db",), labels=("rack=7",))

    def received() -> list[str]:
        admitted.clock.pass_(1)
        return sorted(one.name for one in machine.attest(admitted.call).secrets)

    assert received() == ["db-password"]
    label(admitted, "rack=7")
    assert received() == ["any-role", "db-password"]
    label(admitted, "environment=production")
    assert received() == ["any-role", "both", "db-password"]
    label(admitted, "rack=8", remove=("environment",))
    assert received() == ["db-password"]
    assert admitted.service.nodes.show("n1").labels == ("rack=8",)


@needs_swtpm
@pytest.mark.tpm
def test_labels_are_logged_once_per_change(admitted):
    label(admitted, "rack=7", "a=b")
    (entry,) = [one for one in admitted.entries() if one.kind == "node-labels"]
    assert (entry.labels, admitted.name(entry.actor)) == (("a=b", "rack=7"), "alice")
    label(admitted, "rack=7")
    assert admitted.kinds().count("node-labels") == 1
    label(admitted, *(f"k{number}=v" for number in range(30)))
    with pytest.raises(TooManyLabels):
        label(admitted, "one=more")


def test_a_secret_for_every_node_is_refused(server):
    with pytest.raises(NoAudience):
        put(server, "db")


@needs_swtpm
@pytest.mark.tpm
def test_versions_and_their_holders_are_shown_without_values(admitted):
    put_secret(admitted.service, "db-password", "web")
    revoke(admitted)
    detail = admitted.service.secret_reader.show("db-password")
    assert [one.version for one in detail.versions] == [2, 1]
    assert detail.versions[0].held_by == ()
    (holder,) = detail.versions[1].held_by
    assert (holder.node_name, holder.revoked_at is not None) == ("n1", True)
    assert PASSWORD.decode() not in repr(detail)
    with pytest.raises(NoSuchSecret):
        admitted.service.secret_reader.show("other")


def test_a_value_is_read_only_after_the_log_says_so(server):
    put_secret(server.service, "db", "web", b"one")
    put_secret(server.service, "db", "web", b"two")
    reader = server.service.secret_reader
    assert reader.read("db", SecretReading(), "alice").value == b"two"
    value = reader.read("db", SecretReading(version=1), "alice")
    assert value.value == b"one"
    assert "one" not in repr(value)
    entry = server.entries()[-1]
    assert (entry.kind, entry.secret, entry.version) == ("secret-read", "db", 1)
    assert server.name(entry.actor) == "alice"
    for name, version in (("db", 3), ("other", None)):
        with pytest.raises(NoSuchSecret):
            reader.read(name, SecretReading(version=version), "alice")
    server.service.setting.journal.record = None  # a log that cannot be written
    with pytest.raises(TypeError):
        reader.read("db", SecretReading(), "alice")


def test_a_removed_secret_cannot_be_read_in_any_version(server):
    put_secret(server.service, "db", "web")
    put_secret(server.service, "db", "web")
    server.service.secrets.remove("db", "alice")
    for version in (None, 1, 2):
        with pytest.raises(NoSuchSecret):
            server.service.secret_reader.read("db", SecretReading(version=version), "alice")


def test_an_old_version_can_be_removed_alone_and_is_gone(server):
    for value in (b"one", b"two"):
        put_secret(server.service, "db", "web", value)
    with pytest.raises(NewestVersion):
        server.service.secrets.remove("db", "alice", 2)
    with pytest.raises(NoSuchSecret):
        server.service.secrets.remove("db", "alice", 3)
    assert server.service.secrets.remove("db", "alice", 1).version == 1
    entry = server.entries()[-1]
    assert (entry.kind, entry.action, entry.version) == ("secret-change", "removed", 1)
    with pytest.raises(NoSuchSecret):
        server.service.secret_reader.read("db", SecretReading(version=1), "alice")
    assert server.service.secret_reader.read("db", SecretReading(), "alice").value == b"two"
    put_secret(server.service, "db", "web", b"three")
    assert [one.version for one in server.service.secret_reader.show("db").versions] == [3, 2]
