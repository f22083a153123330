"""Keys and options for ssh: the real ssh-keygen and the real ssh judge them."""

from __future__ import annotations

import socket
import stat
import subprocess
import threading
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.guest.ssh import (
    Access,
    ensure_key,
    format_known_host,
    make_host_key,
    plan_ssh,
    public_path,
    read_public_key,
)


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'a %h b"c\\d ünï'
    folder.mkdir()
    return folder


def _access(folder: Path) -> Access:
    return Access("box", IPv4Address("127.0.0.1"), ensure_key(None, folder / "id"), folder / "known")


def test_ssh_reads_the_files_it_is_told_whatever_their_folder_is_called(odd_folder: Path) -> None:
    access = _access(odd_folder)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        ssh, *rest = plan_ssh(access, None, tty=False)
        port = str(server.getsockname()[1])
        done = subprocess.run([ssh, "-vv", "-p", port, *rest], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    # 3 is ED25519, -1 a file that could not be read.
    assert "/id type 3\n" in done.stderr
    assert "unknown key" not in done.stderr


def test_the_options_trust_the_known_key_only_and_ask_nothing(tmp_path: Path) -> None:
    ssh, *rest = plan_ssh(_access(tmp_path), "true", tty=False)
    shown = subprocess.run([ssh, "-G", *rest], capture_output=True, text=True, check=True).stdout
    options = dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)
    assert options["user"] == "root"
    assert options["hostname"] == "127.0.0.1"
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["hostkeyalias"] == "box"
    assert options["identitiesonly"] == "yes"
    assert options["preferredauthentications"] == "publickey"
    assert options["userknownhostsfile"] == str(tmp_path / "known")
    assert options["globalknownhostsfile"] == "none"
    assert options["requesttty"] == "false"


def test_nothing_of_the_user_s_own_configuration_is_read(tmp_path: Path) -> None:
    argv = plan_ssh(_access(tmp_path), None, tty=True)
    assert argv[argv.index("-F") + 1] == "none"
    assert "-t" in argv
    assert "--" not in argv


def test_a_command_is_one_argument_after_the_dashes(tmp_path: Path) -> None:
    assert plan_ssh(_access(tmp_path), "-x; y", tty=False)[-3:] == ["root@127.0.0.1", "--", "-x; y"]


def test_a_key_is_made_once_and_private(tmp_path: Path) -> None:
    own = tmp_path / "ssh" / "id_ed25519"
    assert ensure_key(None, own) == own
    before = own.read_bytes()
    assert ensure_key(None, own).read_bytes() == before
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700
    assert sorted(path.name for path in own.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]
    assert read_public_key(own).startswith("ssh-ed25519 ")


def test_a_lost_public_key_is_derived(tmp_path: Path) -> None:
    own = ensure_key(None, tmp_path / "id")
    public = read_public_key(own).split()[:2]
    public_path(own).unlink()
    assert read_public_key(own).split()[:2] == public


def test_many_that_make_the_key_at_once_agree_on_one(tmp_path: Path) -> None:
    own = tmp_path / "ssh" / "id_ed25519"
    ready = threading.Barrier(8)
    seen: list[str] = []

    def work() -> None:
        ready.wait()
        seen.append(read_public_key(ensure_key(None, own)).split()[1])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert sorted(path.name for path in own.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_configured_key_must_be_there_with_its_public_half(tmp_path: Path) -> None:
    configured = tmp_path / "mine"
    for present in ([], [configured], [public_path(configured)]):
        for path in present:
            path.touch()
        with pytest.raises(BangerError) as caught:
            ensure_key(configured, tmp_path / "own")
        assert caught.value.reason is Reason.NOT_FOUND
        for path in present:
            path.unlink()
    configured.touch()
    public_path(configured).touch()
    assert ensure_key(configured, tmp_path / "own") == configured
    assert not (tmp_path / "own").exists()


def test_a_host_key_is_known_under_the_name_of_its_machine(tmp_path: Path) -> None:
    key = make_host_key(tmp_path)
    known = tmp_path / "known"
    known.write_text(format_known_host("box", key))
    found = subprocess.run(["ssh-keygen", "-F", "box", "-f", known], capture_output=True, text=True, check=True)
    assert key.public in found.stdout
    private = tmp_path / "key"
    private.write_text(key.private)
    private.chmod(0o600)
    assert read_public_key(private).split()[:2] == key.public.split()
    assert make_host_key(tmp_path) != key
