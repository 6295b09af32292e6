"""Runs in a virtual machine: takes commands from the virtio-serial port, one at a time, and answers what came of them.

A line of JSON each way: {"command", "stdin"} there, {"code", "stdout", "stderr"} back.
"""

import json
import subprocess
from pathlib import Path

PORT = Path("/dev/virtio-ports/agent")


def run(command: list[str], stdin: str) -> dict[str, str | int]:
    """Run a command; what it leaves in the background does not hold up the answer."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return {"code": 127, "stdout": "", "stderr": str(error)}
    return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


with PORT.open("r+b", buffering=0) as port:
    pending = b""
    while True:
        while b"\n" not in pending:
            pending += port.read(1 << 16) or b""
        line, pending = pending.split(b"\n", 1)
        rest = memoryview(json.dumps(run(**json.loads(line))).encode() + b"\n")
        while rest:
            rest = rest[port.write(rest) :]
