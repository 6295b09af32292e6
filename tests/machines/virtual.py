"""Virtual machines that boot Debian's own kernel under QEMU, with systemd, and need no KVM.

Commands get there through a virtio-serial port, on whose other end `agent.py` listens. A machine has no network card:
what it connects to are namespaces and containers of its own.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from pathlib import Path

from tests.machines.machine import Machine, wait_until
from tests.machines.process import BOUND
from tests.machines.root import quietly

BOOT_SECONDS = 120.0
STOP_SECONDS = 120.0
AGENT = Path(__file__).with_name("agent.py")
AGENT_UNIT = """\
[Unit]
Description=Runs what the tests ask for
DefaultDependencies=no
After=systemd-udevd.service systemd-tmpfiles-setup.service
Requires=dev-virtio\\x2dports-agent.device
After=dev-virtio\\x2dports-agent.device
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/wgd-test-agent
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
# What it started is the tests' business.
KillMode=process

[Install]
WantedBy=sysinit.target
"""
# The initrd gets the disk's drivers alone: emulated, a full one takes longer to unpack than all else to boot.
INITRD_MODULES = """--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d" &&
    echo MODULES=list >"$1/etc/initramfs-tools/conf.d/list" &&
    printf '%s\\n' virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules\""""


def make_image(making: Path, root: Path) -> None:
    """Make the folder `making` with kernel, initrd and disk of a machine that boots `root`, which gets the agent."""
    making.mkdir()
    shutil.copyfile(next((root / "boot").glob("vmlinuz-*")), making / "kernel")
    shutil.copyfile(next((root / "boot").glob("initrd.img-*")), making / "initrd")
    (root / "etc/machine-id").write_text("5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e\n")
    (root / "etc/hostname").write_text("gateway\n")
    shutil.copyfile(AGENT, root / "usr/local/sbin/wgd-test-agent")
    (root / "etc/systemd/system/wgd-test-agent.service").write_text(AGENT_UNIT)
    quietly("systemctl", f"--root={root}", "enable", "wgd-test-agent.service")
    quietly("truncate", "--size=2G", str(making / "disk"))
    quietly("mkfs.ext4", "-q", "-O", "^has_journal", "-d", str(root), str(making / "disk"))


class VirtualMachine(Machine):
    """A machine on a snapshot of the image in the folder `image`: what it changes goes with it, over reboots too."""

    def __init__(self, name: str, suite: str, image: Path, scratch: Path) -> None:
        super().__init__(name, suite)
        self._image = image
        self._scratch = scratch
        self._qemu: subprocess.Popen[bytes] | None = None
        self._agent: socket.socket | None = None
        self._answers = b""
        quietly("cp", "--sparse=always", str(image / "disk"), str(scratch / "disk"))

    @property
    def console(self) -> str:
        """What the machine printed on its serial console."""
        return (self._scratch / "console").read_text(errors="replace")

    def boot(self) -> None:
        """Start the machine and wait until systemd has nothing more to do."""
        port = self._scratch / "agent"
        port.unlink(missing_ok=True)
        # Emulated always: KVM within a virtual machine may hang. cx16 makes Debian 13's kernel panic.
        # Expedited RCU makes the removal of a peer wait microseconds: emulated, 10,000 took minutes otherwise.
        command = [
            *(*BOUND, "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1536"),
            *("-cpu", "max,-cx16", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-serial", f"file:{self._scratch}/console"),
            *("-kernel", f"{self._image}/kernel", "-initrd", f"{self._image}/initrd"),
            *("-append", "console=ttyS0 quiet panic=-1 root=/dev/vda rw rcupdate.rcu_expedited=1"),
            *("-drive", f"file={self._scratch}/disk,format=raw,if=virtio,cache=unsafe"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={port},server=on,wait=off"),
            *("-device", "virtserialport,chardev=agent,name=agent"),
            *("-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng"),
        ]
        with (self._scratch / "qemu").open("wb") as output:
            self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        wait_until(f"{self.name} starts", lambda: self._is_running() and port.exists())
        self._agent = socket.socket(socket.AF_UNIX)
        self._agent.connect(str(port))
        self._answers = b""
        # The port keeps what is written until the agent is there to read it.
        state = self.answer("systemctl", "is-system-running", "--wait", seconds=BOOT_SECONDS)[1].strip()
        assert state in {"running", "degraded"}, f"{self.name}: {state}\n{self.console}"

    def _is_running(self) -> bool:
        assert self._qemu is not None
        code = self._qemu.poll()
        assert code is None, f"QEMU ended with {code}:\n{(self._scratch / 'qemu').read_text()}{self.console[-3000:]}"
        return True

    def execute(self, command: list[str], stdin: str, seconds: float) -> subprocess.CompletedProcess[str]:
        assert self._agent is not None, f"{self.name} is not running"
        self._agent.settimeout(seconds)
        self._agent.sendall(json.dumps({"command": command, "stdin": stdin}).encode() + b"\n")
        while b"\n" not in self._answers:
            try:
                received = self._agent.recv(1 << 20)
            except TimeoutError:
                raise AssertionError(f"{self.name}: no answer from {command}; its console:\n{self.console}") from None
            assert received, f"{self.name} went away during {command}; its console:\n{self.console}"
            self._answers += received
        line, self._answers = self._answers.split(b"\n", 1)
        answer = json.loads(line)
        return subprocess.CompletedProcess(command, answer["code"], answer["stdout"], answer["stderr"])

    def power_off(self) -> None:
        """Shut the machine down in order."""
        if self._qemu is None:
            return
        self.run("systemctl", "--no-block", "poweroff")
        self._qemu.wait(STOP_SECONDS)
        self._disconnect()

    def _disconnect(self) -> None:
        if self._agent is not None:
            self._agent.close()
        self._qemu = self._agent = None

    def reboot(self) -> None:
        self.power_off()
        self.boot()

    def remove(self) -> None:
        """Take the machine and its disk away; whoever calls needs nothing more of it."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait(STOP_SECONDS)
        self._disconnect()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._scratch)
