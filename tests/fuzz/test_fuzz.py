"""The fuzzing harness itself: it leaves no parser out, and it starts from inputs that are good."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from fuzz_probe import Probe
from fuzz_targets import TARGETS
from hostile import bit_flips

from catena import audit, formats
from catena.errors import FormatError

PROBES = [probe for target in TARGETS.values() for probe in target.probes]
COVERED = {probe.name for probe in PROBES}
WELL_FORMED = [(probe, seed) for probe in PROBES for seed in probe.seeds()]


def readers(package):
    """Every public function of a room that takes bytes and makes something else of them."""
    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or name.startswith("_"):
                continue
            signature = inspect.signature(function)
            first = next(iter(signature.parameters.values()), None)
            takes_bytes = first is not None and first.annotation == "bytes"
            if name.startswith(("parse", "decode")) or (
                takes_bytes and signature.return_annotation != "bytes"
            ):
                yield f"{found.name}.{name}"


def test_every_parser_is_fuzzed():
    assert sorted(set(readers(formats)) - COVERED) == []


INSIDE = {
    "follow.known": "checkpoint.verify",
    "people.pseudonym": "people.open_people",
    "merkle.verify_inclusion": "receipt.verify_proof",
    "verify.open_leaf": "leaf.open_entry",
}
"""Readers of the audit room that do nothing else with their bytes than to hand them on."""


def test_every_reader_of_logs_is_fuzzed():
    covered = {name.removeprefix("audit.") for name in COVERED if name.startswith("audit.")}
    assert set(INSIDE.values()) <= covered
    assert sorted(set(readers(audit)) - covered - INSIDE.keys()) == []


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_probe_starts_from_an_input_that_it_accepts(probe):
    assert any(probe(seed) for seed in probe.seeds())


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_seed_holds(target):
    for seed in target.seeds():
        target(seed)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_damaged_seeds_hold(probe):
    for seed in probe.seeds():
        for damaged in bit_flips(seed, step=1 + len(seed) * 8 // 200):
            probe(damaged)
        for size in range(0, len(seed), 1 + len(seed) // 50):
            probe(seed[:size])


def test_another_error_than_the_promised_one_is_a_finding():
    def broken(data):
        raise KeyError(data)

    with pytest.raises(KeyError):
        Probe("broken.parse", broken)(b"x")


def test_an_offset_outside_the_input_is_a_finding():
    def lost(data):
        raise FormatError("lost", offset=len(data) + 1)

    with pytest.raises(AssertionError, match="outside"):
        Probe("lost.parse", lost)(b"x")
