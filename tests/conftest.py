"""What holds for every test: nothing fails because the machine is busy, and no service stays behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

import ceph as cephs
from catena.lab import archive
from catena.lab.tree import SUITE, Cache
from postgres import PostgreSQL

settings.register_profile("catena", deadline=None)
settings.load_profile("catena")

CACHE = Path(os.environ.get("CATENA_CACHE", ".cache")).absolute()
BESIDE = {"containerd": "containerd", "docker-registry": "docker-registry", "docker.io": "dockerd"}
"""Programs by package that Debian would start as services: they are unpacked and not installed."""


def on_path() -> None:
    """Put what is missing of them on the PATH; tests that need it skip where it cannot be had."""
    for package, program in BESIDE.items():
        if shutil.which(program) is None:
            try:
                folder = archive.unpacked(Cache(CACHE), SUITE, package, print)
            except archive.NoSuchPackage:
                continue
            os.environ["PATH"] += f":{folder / 'usr/bin'}:{folder / 'usr/sbin'}"


on_path()


@pytest.fixture(scope="session")
def postgresql():
    """A real PostgreSQL server."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ceph():
    """A real S3 service."""
    service = cephs.start()
    yield service
    service.close()
