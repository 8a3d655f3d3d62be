"""Who records everything between processor and TPM learns no secret."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from catena.formats.tpm2 import parse_public
from catena.ids import HashAlg
from catena.keys.protect import make_credential, seal_to_tpm
from catena.lab.swtpm import free_port_pair
from catena.tpm.device import Tpm, open_tpm
from swtpm import SoftwareTpm, needs_swtpm

pytestmark = [pytest.mark.tpm, needs_swtpm]


@contextmanager
def recorded(machine: SoftwareTpm) -> Iterator[tuple[str, bytearray]]:
    """A TCTI through a relay that keeps a copy of every byte, in both directions."""
    record = bytearray()
    port = free_port_pair()
    with ExitStack() as stack:
        for offset in (0, 1):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", port + offset)))
            serve = threading.Thread(target=_relay, args=(listener, machine.port + offset, record))
            serve.start()
            stack.callback(serve.join)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        yield f"swtpm:port={port}", record


def _relay(listener: socket.socket, port: int, record: bytearray) -> None:
    while True:
        try:
            near, _ = listener.accept()
        except OSError:
            return
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=_copy, args=(far, near, record))
            back.start()
            _copy(near, far, record)
            back.join()


def _copy(source: socket.socket, target: socket.socket, record: bytearray) -> None:
    while data := source.recv(65536):
        record += data
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def test_activation_secret_does_not_cross_the_bus(machine: SoftwareTpm):
    secret = os.urandom(32)
    with recorded(machine) as (tcti, record):
        with open_tpm(tcti) as tpm:
            ek, ak = parse_public(tpm.ek_public()), parse_public(tpm.ak_public())
            challenge = make_credential(ek, ak.name(), secret, seed=os.urandom(32))
            assert tpm.activate_credential(*challenge) == secret
        assert ak.x in record
        assert secret not in record


def test_unsealed_key_does_not_cross_the_bus(machine: SoftwareTpm):
    with recorded(machine) as (tcti, record):
        with open_tpm(tcti) as tpm:
            key = unsealed(tpm)
        assert len(record) > 1000
        assert key not in record


def unsealed(tpm: Tpm) -> bytes:
    values = dict(enumerate(tpm.read_pcrs(HashAlg.SHA256, range(8))))
    sealed = seal_to_tpm(
        parse_public(tpm.ek_public()),
        b"payload",
        name="n",
        version=1,
        bank=HashAlg.SHA256,
        pcr_values=values,
        random=os.urandom,
    )
    return tpm.unseal(
        public=sealed.public,
        duplicate=sealed.duplicate,
        seed=sealed.seed,
        bank=HashAlg.SHA256,
        pcrs=sealed.pcrs,
    )
