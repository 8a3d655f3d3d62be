"""CPU time of judging a container's start against the default launch policy, as the gate does it.

The configurations are those that podman, containerd and runc wrote (``tests/containers``), each time with
other container IDs, as no two starts have the same. The policy is compiled and the image's
configuration parsed beforehand; the configuration is read anew each time.

    python benchmarks/containers_launch.py [-o json] [--rounds N]

Ends with 1 if a limit is missed.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from catena.containers.launch.check import check_create
from catena.containers.launch.document import default_policy
from catena.containers.launch.rules import CompiledLaunch, compile_launch
from catena.formats import imageconfig
from catena.formats.runtime import parse_config, private_copy
from figures import Figure, cheapest, command, milliseconds

RECORDED = Path(__file__).resolve().parents[1] / "tests/containers/launch_configs"
IDS = 64


def figures(rounds: int) -> Iterator[Figure]:
    """Read, check and copy for each engine; compile once."""
    policy = default_policy()
    yield milliseconds(
        "compile the default policy", cheapest(rounds, lambda: compile_launch(policy))
    )
    compiled = compile_launch(policy)
    for engine in ("podman-4.3", "ctr-1.6", "runc-1.1"):
        yield from _engine(engine, compiled, rounds)


def _engine(engine: str, policy: CompiledLaunch, rounds: int) -> Iterator[Figure]:
    starts = list(_starts(engine))
    image = _image(starts[0])
    texts, configs = itertools.cycle(starts), itertools.cycle(map(parse_config, starts))
    read = cheapest(rounds, lambda: parse_config(next(texts)))
    yield milliseconds(f"{engine}: read", read)
    checked = cheapest(rounds, lambda: check_create(next(configs), policy, image))
    yield milliseconds(f"{engine}: check", checked, limit=0.3)
    copied = cheapest(rounds, lambda: private_copy(next(texts), Path("/bundle")))
    yield milliseconds(f"{engine}: private copy", copied)


def _starts(engine: str) -> Iterator[bytes]:
    text = (RECORDED / f"{engine}.json").read_text()
    for number in range(IDS):
        yield re.sub(r"[0-9a-f]{64}", f"{number * 0x9E3779B97F4A7C15:064x}"[-64:], text).encode()


def _image(start: bytes) -> imageconfig.ImageConfig:
    settings = {"Cmd": list(parse_config(start).argv)}
    layers = {"type": "layers", "diff_ids": []}
    whole = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": layers}
    return imageconfig.parse(json.dumps(whole).encode())


if __name__ == "__main__":
    command(__doc__, figures, rounds=2000)
