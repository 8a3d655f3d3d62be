"""What tests of containers share: one real registry, and one GnuPG with two keys."""

from __future__ import annotations

import pytest

from container_images import registry
from gnupg import gnupg


@pytest.fixture(scope="session")
def local_registry(tmp_path_factory):
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def gpg():
    """A home of GnuPG with the keys of alice and bob; tests add their own."""
    with gnupg() as home:
        for name in ("alice", "bob"):
            home.new_key(name)
        yield home
