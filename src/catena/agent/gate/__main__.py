"""``python3 -m catena.agent.gate [CONFIG]``: what ``catena agent gate`` does, without a command line."""

from __future__ import annotations

import sys
from pathlib import Path

from catena.agent.gate.config import DEFAULT_PATH
from catena.agent.gate.serving import serve
from catena.errors import CatenaError, ExitCode


def main(arguments: list[str]) -> int:
    """Run the gate; the exit code is that of the ``catena`` command."""
    try:
        serve(Path(arguments[0]) if arguments else DEFAULT_PATH)
    except CatenaError as error:
        sys.stderr.write(f"error: {error} [{error.code}]\nremedy: {error.remedy}\n")
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
