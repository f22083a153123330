"""The real QEMU, without KVM, network or a guest that gets anywhere: started, found, stopped, refused."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.vmm.process import ProcessId, is_alive, kill, wait_gone
from banger.vmm.qemu import Qemu
from banger.vmm.spec import Drive, MachineSpec

pytestmark = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
_QEMU = Qemu(kvm=False)


def _endless_kernel() -> bytes:
    """The smallest PVH kernel: an ELF file with an entry note, whose code is one jump to itself."""
    entry = 0x100000
    # One loadable segment; one note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY, Xen's public/elfnote.h) with the entry.
    code_at, note_at = 0x1000, 0x200
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, code_at, entry, entry, 2, 2, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, note_at, note_at, note_at, len(note), len(note), 4)
    image = bytearray(code_at + 2)
    image[0 : len(header)] = header
    image[64 : 64 + 112] = load + notes
    image[note_at : note_at + len(note)] = note
    image[code_at:] = b"\xeb\xfe"
    return bytes(image)


@dataclass
class Bench:
    folder: Path
    spec: MachineSpec
    started: list[ProcessId]

    def start(self) -> ProcessId:
        process = _QEMU.start(self.spec)
        self.started.append(process)
        return process

    def processes(self) -> list[int]:
        """Every process whose command line speaks of this bench's folder."""
        wanted = os.fsencode(self.folder.name)
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if wanted in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return found


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not tmp_path: a Unix socket's path must stay under 108 bytes. Nothing in this name is an option of QEMU's.
    with tempfile.TemporaryDirectory(prefix="q,a=b %h ünï ") as name:
        folder = Path(name)
        (folder / "run, time").mkdir(mode=0o700)
        (folder / "kernel,x").write_bytes(_endless_kernel())
        (folder / "initramfs,y").write_bytes(b"initramfs")
        for disk in ("root,disk.erofs", "work disk.ext4"):
            with (folder / disk).open("wb") as file:
                file.truncate(1 << 20)
        spec = MachineSpec(
            name="box",
            kernel=folder / "kernel,x",
            initramfs=folder / "initramfs,y",
            command_line=(*_QEMU.kernel_words(), "a=b,c"),
            vcpus=1,
            memory_mib=128,
            drives=(Drive("root", folder / "root,disk.erofs", True), Drive("work", folder / "work disk.ext4", False)),
            nic=None,
            runtime_dir=folder / "run, time",
            log=folder / "console,log",
        )
        bench = Bench(folder, spec, [])
        yield bench
        for process in bench.started:
            kill(process, signal.SIGKILL)
            wait_gone(process, 10)


def test_a_machine_starts_and_is_found_by_its_process(bench: Bench) -> None:
    process = bench.start()
    assert is_alive(process)
    assert bench.processes() == [process.pid]
    assert os.getsid(process.pid) == process.pid
    assert {path.name for path in bench.spec.runtime_dir.iterdir()} == {"qmp.sock", "agent.sock"}
    kill(process, signal.SIGKILL)
    assert wait_gone(process, 10)
    assert not is_alive(process)


def test_the_power_button_can_be_pressed_and_the_agent_s_channel_opened(bench: Bench) -> None:
    process = bench.start()
    with _QEMU.connect_agent(bench.spec.runtime_dir, 30) as channel:
        channel.sendall(b"nobody reads this\n")
    _QEMU.press_power_button(bench.spec.runtime_dir)
    _QEMU.press_power_button(bench.spec.runtime_dir)
    assert is_alive(process)


def test_the_sockets_of_a_machine_that_is_gone_are_told_as_gone(bench: Bench) -> None:
    process = bench.start()
    kill(process, signal.SIGKILL)
    assert wait_gone(process, 10)
    with pytest.raises(BangerError) as caught:
        _QEMU.press_power_button(bench.spec.runtime_dir)
    assert caught.value.reason is Reason.UNAVAILABLE
    with pytest.raises(BangerError) as caught:
        _QEMU.connect_agent(bench.spec.runtime_dir, 1)
    assert caught.value.reason is Reason.GUEST


@pytest.mark.parametrize("kernel", [b"", b"not a kernel" * 100], ids=["empty", "garbage"])
def test_a_bad_kernel_is_told_with_qemu_s_own_words_and_nothing_is_left(bench: Bench, kernel: bytes) -> None:
    bench.spec.kernel.write_bytes(kernel)
    bench.spec.log.write_text("an earlier machine's words\n")
    with pytest.raises(BangerError) as caught:
        bench.start()
    assert caught.value.reason is Reason.MONITOR_DIED
    assert "  | qemu" in caught.value.message
    assert "earlier" not in caught.value.message
    assert list(bench.spec.runtime_dir.iterdir()) == []
    assert bench.processes() == []


def test_a_missing_disk_is_told_by_its_name_and_nothing_is_left(bench: Bench) -> None:
    bench.spec.drives[0].path.unlink()
    with pytest.raises(BangerError) as caught:
        bench.start()
    assert caught.value.reason is Reason.MONITOR_DIED
    assert "root,disk.erofs" in caught.value.message.partition("\n")[2]
    assert list(bench.spec.runtime_dir.iterdir()) == []
    assert bench.processes() == []


def test_a_folder_whose_name_is_too_long_for_a_socket_is_told(bench: Bench) -> None:
    folder = bench.folder / ("x" * 100)
    folder.mkdir()
    bench.spec = replace(bench.spec, runtime_dir=folder)
    begin = time.monotonic()
    with pytest.raises(BangerError) as caught:
        bench.start()
    assert caught.value.reason is Reason.MONITOR_DIED
    # It is not waited for until a start has taken too long.
    assert time.monotonic() - begin < 20
    assert bench.processes() == []


def test_the_log_grows_and_keeps_what_was_there(bench: Bench) -> None:
    bench.spec.log.write_text("before\n")
    bench.start()
    assert bench.spec.log.read_text().startswith("before\n")


def test_a_read_only_disk_can_be_given_to_two_machines_and_a_writable_one_cannot(bench: Bench) -> None:
    bench.start()
    (bench.folder / "run2").mkdir()
    only_root = replace(bench.spec, drives=bench.spec.drives[:1], runtime_dir=bench.folder / "run2")
    bench.started.append(_QEMU.start(only_root))
    (bench.folder / "run3").mkdir()
    with pytest.raises(BangerError) as caught:
        _QEMU.start(replace(bench.spec, runtime_dir=bench.folder / "run3"))
    assert caught.value.reason is Reason.MONITOR_DIED
    assert list((bench.folder / "run3").iterdir()) == []


def test_a_machine_has_no_device_that_nobody_asked_for(bench: Bench) -> None:
    argv = _QEMU.plan_command(bench.spec)
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert argv[argv.index("-append") + 1] == "console=ttyS0 panic=1 a=b,c"
    assert "-netdev" not in argv
    assert "tcg" in argv[argv.index("-accel") + 1]
    assert Qemu(kvm=True).plan_command(bench.spec)[argv.index("-accel") + 1] == "kvm"
