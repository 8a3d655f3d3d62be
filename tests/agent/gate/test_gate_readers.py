from __future__ import annotations

import subprocess
import sys

CRASH = """
import json, sys, threading
from standing import config_for
from catena.agent.gate.readers import make_ready
from catena.formats.runtime import parse_config

sys.setswitchinterval(1e-6)
make_ready()
data = json.dumps(config_for()).encode()
together = threading.Barrier(16)

def read():
    together.wait()
    parse_config(data)

threads = [threading.Thread(target=read) for _ in range(16)]
for one in threads: one.start()
for one in threads: one.join()
"""


def test_first_documents_may_come_in_many_threads_at_once():
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", CRASH],
            cwd=__file__.rpartition("/")[0],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-500:]
