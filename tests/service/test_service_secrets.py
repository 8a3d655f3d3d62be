from __future__ import annotations

import pytest

from catena.service.secrets import SEALED_PCRS, BadSecretName, NoSuchSecret
from service.fixtures import PASSWORD, listed, put_secret


def test_a_secret_has_versions_and_is_never_shown(server):
    put_secret(server.service, "db", "web")
    put_secret(server.service, "db", "web")
    (view,) = listed(server.service.secrets)
    assert (view.name, view.version, view.roles) == ("db", 2, ("web",))
    assert PASSWORD.decode() not in repr(view)


def test_nothing_on_disk_holds_the_value(server):
    put_secret(server.service, "db", "web")
    server.opened.close()
    for path in server.folder.rglob("*"):
        assert path.is_dir() or PASSWORD not in path.read_bytes(), path
    server.reopen()


def test_put_and_removal_are_logged_without_the_value(server):
    put_secret(server.service, "db", "web")
    server.service.secrets.remove("db", "alice")
    put, removed = server.entries()[-2:]
    assert (put.action, put.secret, put.version, put.roles) == ("put", "db", 1, ("web",))
    assert (removed.action, server.name(removed.actor)) == ("removed", "alice")
    assert listed(server.service.secrets) == ()


def test_a_removed_version_number_is_not_used_again(server):
    put_secret(server.service, "db", "web")
    server.service.secrets.remove("db", "alice")
    put_secret(server.service, "db", "web")
    assert listed(server.service.secrets)[0].version == 2


def test_removing_what_is_not_there_is_refused(server):
    with pytest.raises(NoSuchSecret):
        server.service.secrets.remove("db", "alice")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "-a", "a" * 129, "a\n"])
def test_a_name_that_could_leave_its_folder_is_refused(server, name):
    with pytest.raises(BadSecretName):
        put_secret(server.service, name, "web")


def test_secrets_are_bound_to_the_boot_and_not_to_what_grows():
    assert set(range(16)) - set(SEALED_PCRS) == {10, 15}
