"""A trust service over a real database, log and keys, with a clock that tests move."""

from __future__ import annotations

from service.fixtures import *  # noqa: F403 - one set of fixtures for service and server
