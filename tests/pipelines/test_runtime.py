"""The scripts of the guest's runtime, run by the real busybox in small roots that stand for images."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SCRIPTS = Path(__file__).parents[2] / "pipelines/runtime"
_STUB = '#!/run/banger/bin/busybox sh\necho "${0##*/} $*" >>/run/banger/ran\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root that holds nothing but the runtime; its programs leave word of how they were called."""
    bin_folder = tmp_path / "run/banger/bin"
    bin_folder.mkdir(parents=True)
    (tmp_path / "dev").mkdir()
    shutil.copy("/usr/bin/busybox", bin_folder)
    for name in ("setpriv", "dropbear", "dropbearconvert", "qemu-ga"):
        (bin_folder / name).write_text(_STUB)
    (bin_folder / "setpriv").write_text('#!/run/banger/bin/busybox sh\necho "$*|$HOME|${USER-none}"\n')
    for name in ("as", "banger-vsock-agent"):
        shutil.copy(_SCRIPTS / name, bin_folder)
    parts = tmp_path / "run/banger/lib/banger"
    parts.mkdir(parents=True)
    for name in ("folder", "prepare"):
        shutil.copy(_SCRIPTS / name, parts)
    for program in bin_folder.iterdir():
        program.chmod(0o755)
    return tmp_path


def _inside(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["unshare", "--map-root-user", f"--root={root}", "/run/banger/bin/busybox", *words]
    return subprocess.run(argv, capture_output=True, text=True, env={"USER": "root", "HOME": "/root"})


def _write(root: Path, path: str, text: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


def _prepare(root: Path, init: str = "/run/banger/bin/init") -> str:
    """What was started."""
    done = _inside(root, "sh", "/run/banger/lib/banger/prepare", "vsock", "reboot", init)
    assert done.returncode == 0, done.stderr
    return (root / "run/banger/ran").read_text()


_FITTING = """\
port 22
hostkey /etc/ssh/ssh_host_ed25519_key
permitrootlogin without-password
pubkeyauthentication yes
passwordauthentication no
authorizedkeysfile /root/.ssh/authorized_keys
"""


def _write_sshd(root: Path, settings: str = _FITTING) -> None:
    """One that reports these settings (`sshd -T`)."""
    _write(root, "usr/sbin/sshd", "#!/run/banger/bin/busybox sh\ncat /settings\n")
    _write(root, "settings", settings)


_PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235::/srv:/bin/sh\n77:x:99:99::/77:\nlast:x:5:6::"
_GROUP = "root:x:0:\napp:x:1235:\nmore:x:70:other,app\nmost:x:71:app\napple:x:72:apple\nlast:x:73:last"


@pytest.mark.parametrize(
    ("user", "ran"),
    [
        ("app", "--reuid 1234 --regid 1235 --groups 1235,70,71 -- id -u|/srv|app"),
        ("1234", "--reuid 1234 --regid 1235 --groups 1235,70,71 -- id -u|/srv|app"),
        ("app:more", "--reuid 1234 --regid 70 --groups 70 -- id -u|/srv|app"),
        ("app:9", "--reuid 1234 --regid 9 --groups 9 -- id -u|/srv|app"),
        ("1234:more", "--reuid 1234 --regid 70 --groups 70 -- id -u|/srv|app"),
        ("4000:5000", "--reuid 4000 --regid 5000 --groups 5000 -- id -u|/|none"),
        ("4000", "--reuid 4000 --regid 0 --groups 0 -- id -u|/|none"),
        # A number is an id, never a name.
        ("77", "--reuid 77 --regid 0 --groups 0 -- id -u|/|none"),
        ("last", "--reuid 5 --regid 6 --groups 6,73 -- id -u|/|last"),
        ("root:app", "--reuid 0 --regid 1235 --groups 1235 -- id -u|/root|root"),
    ],
)
def test_a_user_is_who_the_image_says(root: Path, user: str, ran: str) -> None:
    _write(root, "etc/passwd", _PASSWD)
    _write(root, "etc/group", _GROUP)
    assert _inside(root, "sh", "/run/banger/bin/as", user, "id", "-u").stdout.strip() == ran


@pytest.mark.parametrize("user", ["nobody", "app:nobody", "ap", "*", "a.p", ":9"])
def test_a_user_or_group_that_the_image_does_not_know_is_refused(root: Path, user: str) -> None:
    _write(root, "etc/passwd", _PASSWD)
    _write(root, "etc/group", _GROUP)
    done = _inside(root, "sh", "/run/banger/bin/as", user, "id")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("banger: ")


def test_a_number_needs_no_accounts(root: Path) -> None:
    assert _inside(root, "sh", "/run/banger/bin/as", "7:8", "id").stdout.startswith("--reuid 7 --regid 8 ")


def test_an_empty_image_gets_a_root_a_shell_and_an_ssh_server(root: Path) -> None:
    assert "dropbear -r" in _prepare(root)
    assert (root / "etc/passwd").read_text() == "root:x:0:0:root:/root:/bin/sh\n"
    assert (root / "bin/sh").readlink() == Path("/run/banger/bin/busybox")
    assert (root / "usr/lib/sftp-server").is_symlink()
    assert not (root / "etc/shadow").exists()


def test_an_image_that_lacks_nothing_is_not_touched(root: Path) -> None:
    _write(root, "bin/bash")
    _write(root, "bin/sh")
    files = {
        "etc/passwd": "root:x:0:0::/root:/bin/bash\n",
        "etc/group": "root:x:0:\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\n",
        "etc/shells": "/bin/bash\n",
        "usr/lib/sftp-server": "",
    }
    _write_sshd(root)
    _write(root, "sbin/openrc")
    before = {path: _write(root, path, text).stat().st_mtime_ns for path, text in files.items()}
    (root / "etc/runlevels/default").mkdir(parents=True)
    (root / "etc/runlevels/default/sshd").symlink_to("/etc/init.d/sshd")
    assert "dropbear -r" not in _prepare(root, "/sbin/init")
    assert {path: (root / path).stat().st_mtime_ns for path in files} == before


@pytest.mark.parametrize(
    ("line", "fixed"),
    [
        ("root:x:0:0:root:/root:/sbin/nologin", "root:x:0:0:root:/root:/bin/sh"),
        ("root:x:0:0:root:/root:/bin/gone", "root:x:0:0:root:/root:/bin/sh"),
        ("root:x:0:0:root:/root:", "root:x:0:0:root:/root:/bin/sh"),
        ("root:!:0:0:root:/:/bin/ash", "root:*:0:0:root:/root:/bin/ash"),
    ],
)
def test_root_can_enter_and_the_others_stay_as_they_are(root: Path, line: str, fixed: str) -> None:
    _write(root, "bin/ash")
    _write(root, "etc/passwd", f"a:!:1:1::/:/sbin/nologin\n{line}\nb:x:2:2::/b:/bin/gone")
    _prepare(root)
    assert (root / "etc/passwd").read_text() == f"a:!:1:1::/:/sbin/nologin\n{fixed}\nb:x:2:2::/b:/bin/gone\n"
    if fixed.endswith("/bin/ash"):
        assert (root / "etc/shells").read_text().split() == ["/bin/sh", "/bin/csh", "/bin/ash"]


@pytest.mark.parametrize(
    ("line", "fixed"),
    [
        ("root:!:19000:0:99999:7:::", "root:*:::::::"),
        ("root:!$6$x:19000:0:99999:7:::", "root:*:::::::"),
        ("root:$6$x:19000:0:99999:7::20000:", "root:$6$x:::::::"),
        ("root:*:0:0:99999:7:::", "root:*:::::::"),
        ("root:*:19000:0:90:7:::", "root:*:::::::"),
        ("root:*:19000:0:99999:7:::", "root:*:19000:0:99999:7:::"),
        ("root::::::::", "root::::::::"),
    ],
)
def test_no_lock_and_no_age_keeps_root_s_key_out(root: Path, line: str, fixed: str) -> None:
    _write(root, "etc/shadow", f"{line}\na:!:1::::1::\n")
    _prepare(root)
    assert (root / "etc/shadow").read_text() == f"{fixed}\na:!:1::::1::\n"


@pytest.mark.parametrize("link", ["/elsewhere/etc", "elsewhere/etc", "/nowhere"])
def test_accounts_are_found_through_links_and_links_to_nowhere_give_way(root: Path, link: str) -> None:
    _write(root, "elsewhere/etc/passwd", "a:x:1:1:::\n")
    (root / "etc").symlink_to(link)
    _prepare(root)
    real = root / "etc" if link == "/nowhere" else root / "elsewhere/etc"
    assert not real.is_symlink()
    first = "root:x:0:0:root:/root:/bin/sh\n"
    assert (real / "passwd").read_text() == (first if link == "/nowhere" else f"{first}a:x:1:1:::\n")


@pytest.mark.parametrize(
    ("wanted", "init", "served"),
    [
        ("etc/systemd/system/multi-user.target.wants/ssh.service", "/systemd", False),
        ("usr/lib/systemd/system/multi-user.target.wants/sshd.service", "/systemd", False),
        ("etc/systemd/system/sockets.target.wants/ssh.socket", "/systemd", False),
        ("etc/systemd/system/multi-user.target.wants/ssh.service", "/sbin/init", True),
        ("etc/rc3.d/S01ssh", "/sbin/init", False),
        ("etc/rc3.d/S01ssh", "/systemd", True),
        ("etc/systemd/system/ssh.socket.wants/sshd-keygen.service", "/systemd", True),
        ("etc/systemd/system/multi-user.target.wants/ssh.service", "/run/banger/bin/init", True),
    ],
)
def test_an_image_whose_sshd_nobody_starts_gets_ours(root: Path, wanted: str, init: str, served: bool) -> None:
    _write_sshd(root)
    _write(root, "systemd")
    _write(root, "etc/init.d/rc")
    link = root / wanted
    link.parent.mkdir(parents=True)
    link.symlink_to("anything")
    assert _is_served(root, init) is served


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("port 22", "port 2222"),
        ("without-password", "no"),
        ("without-password", "forced-commands-only"),
        ("passwordauthentication no", "passwordauthentication yes"),
        ("ssh_host_ed25519_key", "ssh_host_rsa_key"),
        ("pubkeyauthentication yes", "pubkeyauthentication no"),
        ("/root/.ssh/authorized_keys", "/etc/ssh/keys"),
        ("port 22", "port 22\nallowusers app"),
        ("port 22", "port 22\ndenygroups root"),
        (_FITTING, ""),
    ],
)
def test_an_sshd_that_would_not_do_is_masked_and_ours_serves(root: Path, before: str, after: str) -> None:
    _write_sshd(root, _FITTING.replace(before, after))
    _write(root, "systemd")
    link = root / "etc/systemd/system/multi-user.target.wants/ssh.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/lib/systemd/system/ssh.service")
    assert _is_served(root, "/systemd")
    assert (root / "run/systemd/system/ssh.service").readlink() == Path("/dev/null")


def test_an_sshd_that_systemd_is_not_to_start_is_none(root: Path) -> None:
    _write_sshd(root)
    _write(root, "systemd")
    link = root / "etc/systemd/system/multi-user.target.wants/ssh.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/lib/systemd/system/ssh.service")
    (root / "etc/systemd/system/ssh.service").symlink_to("/dev/null")
    assert _is_served(root, "/systemd")


def _is_served(root: Path, init: str) -> bool:
    """By our ssh server, at once or as a unit."""
    return "dropbear -r" in _prepare(root, init) or (root / "run/systemd/system/banger-ssh.service").exists()


def test_systemd_starts_ours_when_its_boot_is_far_enough(root: Path) -> None:
    _write(root, "usr/lib/systemd/systemd")
    _write(root, "sbin/x")
    (root / "sbin/init").symlink_to("/usr/lib/systemd/systemd")
    assert "dropbear -r" not in _prepare(root, "/sbin/init")
    units = root / "run/systemd/system"
    for target in ("multi-user", "emergency", "rescue"):
        assert (units / f"{target}.target.wants/banger-ssh.service").resolve() == units / "banger-ssh.service"
    assert "ExecStart=/run/banger/bin/dropbear " in (units / "banger-ssh.service").read_text()


def test_the_agent_is_started_on_the_channel_of_the_monitor(root: Path) -> None:
    for number, name in (("0", "console"), ("1", "org.qemu.guest_agent.0"), ("2", "other")):
        _write(root, f"sys/class/virtio-ports/vport{number}p1/name", f"{name}\n")
    assert "qemu-ga -m vsock-listen -p 4294967295:1024 -t /run/banger/agent " in _prepare(root)
    ran = root / "run/banger/ran"
    ran.unlink()
    done = _inside(root, "sh", "/run/banger/bin/banger-vsock-agent", "virtio")
    assert done.returncode == 0, done.stderr
    assert ran.read_text().startswith("qemu-ga -m virtio-serial -p /dev/vport1p1 -t /run/banger/agent ")
