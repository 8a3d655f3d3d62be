from __future__ import annotations

import subprocess
import sys

from fuzz_seeds import runtime_config

CRASH = """
import sys, threading
from catena.formats.structs import make_ready
from catena.formats.runtime import parse_config

sys.setswitchinterval(1e-6)
READY
data = bytes.fromhex(sys.argv[1])
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
            [sys.executable, "-c", CRASH.replace("READY", "make_ready()"), runtime_config().hex()],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-500:]
