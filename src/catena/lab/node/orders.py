"""The lab's orchestrator on a node: does what is asked on a port of the machine, one by one.

A line on the port is ``NUMBER VERB NAME``; the answer is a line of JSON on the console. What is
to run (bundles, layers, images) comes from the machine's second disk. Port and disk are hostile
by design: whoever has the rack writes both. That is why this program decides nothing: containers
start through the wrapper. ``kill`` and ``edit`` attack the node from inside, for the lab.
"""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

PORT = "/dev/virtio-ports/catena.orders"
DISK = "/dev/vdb"
DATA = Path("/run/lab/data")
ROOMS = Path("/run/lab/containers")
RECORD = Path("/run/catena-gate/containers.cel")
SECRETS = Path("/run/catena/secrets")
RUNTIME = "/usr/lib/catena/catena-runc"
SECONDS = 120.0
CTR_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What ``ctr run`` gives a container that asks for nothing. Written here again: this program runs without
site packages."""

SAID = 2000

NAME = re.compile(r"[a-z][a-z-]{0,30}")
LAYER = re.compile(r"[a-z0-9][a-z0-9-]{0,80}")


def run(name: str, number: str) -> dict[str, object]:
    """Start a bundle of the disk in the foreground, over an overlay of its layers."""
    room = ROOMS / f"{name}-{number}"
    for folder in ("rootfs", "upper", "work"):
        (room / folder).mkdir(parents=True)
    bundle = DATA / "bundles" / name
    (room / "config.json").write_bytes((bundle / "config.json").read_bytes())
    layers = [word for word in (bundle / "layers").read_text().split() if LAYER.fullmatch(word)]
    lower = ":".join(str(DATA / "layers" / layer) for layer in layers)
    options = f"lowerdir={lower},upperdir={room}/upper,workdir={room}/work"
    command("mount", "-t", "overlay", "-o", options, "overlay", str(room / "rootfs"))
    log = room / "log.json"
    try:
        began = time.monotonic()
        flags = ("--log", str(log), "--log-format", "json")
        done = command(RUNTIME, *flags, "run", "--bundle", str(room), room.name, check=False)
        seconds = round(time.monotonic() - began, 2)
    finally:
        command(RUNTIME, "delete", "--force", room.name, check=False)
        command("umount", str(room / "rootfs"))
    return {
        "status": done.returncode,
        "said": done.stdout[-SAID:],
        "error": done.stderr[-SAID:],
        "log": log.read_text()[-SAID:] if log.exists() else "",
        "seconds": seconds,
    }


def containerd(name: str, number: str) -> dict[str, object]:
    """Run an image of the disk through containerd, which pulls nothing: it imports an archive."""
    if not (DATA / "archives" / f"{name}.tar").exists():
        return {"status": 1, "error": f"no archive {name}"}
    began = time.monotonic()
    command("systemctl", "start", "containerd.service")
    command("ctr", "images", "import", str(DATA / "archives" / f"{name}.tar"))
    ready = time.monotonic()
    reference = command("ctr", "images", "list", "--quiet").stdout.split()[0]
    config = json.loads((DATA / "bundles" / name / "config.json").read_bytes())
    words = [f"--cap-drop={capability}" for capability in CTR_CAPABILITIES]
    for mount in config["mounts"]:
        if mount["type"] == "bind":
            where = f"src={mount['source']},dst={mount['destination']}"
            words += ["--mount", f"type=bind,{where},options={':'.join(mount['options'])}"]
    words += ["--rm", "--seccomp", reference, f"{name}-{number}"]
    done = command("ctr", "run", *words, check=False)
    return {
        "status": done.returncode,
        "said": done.stdout[-SAID:],
        "error": done.stderr[-SAID:],
        "seconds": round(time.monotonic() - ready, 2),
        "prepared": round(ready - began, 2),
    }


def await_secret(name: str, _number: str) -> dict[str, object]:
    """Wait until the agent has delivered a secret."""
    deadline = time.monotonic() + SECONDS
    while not (SECRETS / name).exists():
        if time.monotonic() > deadline:
            return {"status": 1, "error": f"no secret {name}"}
        time.sleep(0.1)
    return {"status": 0, "said": f"secret {name} is there"}


def kill(name: str, _number: str) -> dict[str, object]:
    """End the main process of a service as an attacker would, without a word to it."""
    pid = int(command("systemctl", "show", "-P", "MainPID", f"{name}.service").stdout)
    if not pid:
        return {"status": 1, "error": f"{name} does not run"}
    os.kill(pid, signal.SIGKILL)
    return {"status": 0, "said": f"killed {pid}"}


def edit_record(_name: str, _number: str) -> dict[str, object]:
    """Flip one bit in the middle of the record of what ran."""
    with RECORD.open("r+b") as record:
        middle = record.seek(0, os.SEEK_END) // 2
        record.seek(middle)
        byte = record.read(1)[0]
        record.seek(middle)
        record.write(bytes([byte ^ 1]))
    return {"status": 0, "said": f"byte {middle} changed"}


VERBS = {
    "run": run,
    "containerd": containerd,
    "await": await_secret,
    "kill": kill,
    "edit": edit_record,
}


def carry_out(line: str) -> dict[str, object]:
    """One order; whatever goes wrong is a part of the answer."""
    number, verb, name = (*line.split(), "", "", "")[:3]
    if verb not in VERBS or not NAME.fullmatch(name):
        return {"order": number, "status": -1, "error": f"no such order: {line!r}"}
    try:
        answer = VERBS[verb](name, number)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        answer = {"status": -1, "error": f"{type(error).__name__}: {error}"}
    return {"order": number, "container": f"{name}-{number}", **answer}


def command(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a program of the node to its end."""
    return subprocess.run(  # noqa: S603 - fixed programs
        words,
        capture_output=True,
        text=True,
        errors="replace",
        check=check,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )


def main() -> None:
    """Mount the disk, then serve the port for ever."""
    DATA.mkdir(parents=True, exist_ok=True)
    command("mount", "-t", "squashfs", "-o", "ro,nodev,nosuid", DISK, str(DATA))
    print("lab-orders: ready", flush=True)
    with Path(PORT).open("rb", buffering=0) as port:
        pending = b""
        while True:
            received = port.read(4096)
            if not received:  # nobody holds the other end
                time.sleep(0.2)
                continue
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                answer = carry_out(line.decode("ascii", "replace"))
                print(f"lab-orders: {json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()
