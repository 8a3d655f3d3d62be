"""What tests of image signatures share."""

from __future__ import annotations

import pytest

from gnupg import gnupg


@pytest.fixture(scope="session")
def gpg():
    """A home of GnuPG with the keys of alice and bob; tests add their own."""
    with gnupg() as home:
        for name in ("alice", "bob"):
            home.new_key(name)
        yield home
