"""Images of containers as machines: each boots, runs commands as its config wants it, and is not changed for it.

One Debian is made once and has everything; layers of the tests take away what an image is to lack.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pipelines.apt import find_mirrors
from tests.boot.host import Home, Host, link_tree
from tests.oci.layers import file, folder, layer, symlink, whiteout, write_layout

_HELLO = """\
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char folder[4096];
    printf("%s %d:%d %s %s\\n", argv[0], getuid(), getgid(), getcwd(folder, sizeof folder), getenv("HOME"));
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""
_SHOW = """\
#!/bin/sh
printf '<%s>' "$@" "$GREETING" "$PWD" "$HOME" "$(id -u):$(id -g):$(id -G)"
echo written >>/dev/stdout
"""
_GREETING = 'it\'s "$HOME" `id` \\ !! ünï 100%\n\t*'
# What a shell that is none of POSIX's must not see, and what its words would do.
_WILD = [
    "a b",
    "",
    "it's",
    '"',
    "$HOME",
    "`id`",
    "!!",
    "!x",
    "\\",
    "a\nb",
    "*",
    "ünï",
    "-n",
    "(",
    "%",
    ";",
    "{1,2}",
    "\t",
]
_WITHOUT_INIT = [whiteout("usr/sbin/init"), whiteout("usr/lib/systemd")]
_WITHOUT_SSHD = [whiteout("usr/sbin/sshd"), whiteout("etc/systemd/system/multi-user.target.wants/ssh.service")]
_LAYERS = 60
_CAPABILITY = struct.pack("<5I", 0x02000001, 0x2400, 0, 0, 0)


@pytest.fixture(scope="module")
def home(built: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("oci-home"))
    link_tree(built.store, home.store)
    for kind in ("images", "kernels"):
        link_tree(built.state / kind, home.state / kind)
    yield home
    shutil.rmtree(home.runtime, ignore_errors=True)


@pytest.fixture(scope="module")
def debian(built: Home) -> bytes:
    """Essential packages, systemd without udev, sshd, and a shell that is not POSIX's."""
    kept = built.root / "debian.tar"
    if not kept.exists():
        packages = "--include=systemd-sysv,openssh-server,tcsh"
        fresh = kept.with_suffix(".part.tar")
        options = ["--quiet", "--variant=essential", "--aptopt=APT::Install-Recommends false", packages]
        argv = ["mmdebstrap", *options, "--dpkgopt=path-exclude=/usr/share/locale/*", "trixie", fresh]
        subprocess.run([*argv, find_mirrors(None).debian], check=True)
        fresh.replace(kept)
    return kept.read_bytes()


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program's source, where a compiler is."""
    if shutil.which("gcc") is None:
        pytest.skip("needs a C compiler")
    source = tmp_path_factory.mktemp("hello") / "hello.c"
    source.write_text(_HELLO)
    return source


def make_image(place: Path, layers: Sequence[bytes], config: Mapping[str, str | Sequence[str]]) -> str:
    """A layout whose config the real umoci writes; gives its reference."""
    write_layout(place, {"it": layers}, compression=("none",))
    words = []
    for name, values in config.items():
        for value in [values] if isinstance(values, str) else values:
            words.append(f"--config.{name}={value}")
    if words:
        subprocess.run(["umoci", "config", "--image", f"{place}:it", *words], check=True)
    return f"oci:{place}:it"


def test_a_debian_of_sixty_layers_without_init_and_sshd_runs_things_as_its_config_says(
    host: Host, home: Home, debian: bytes, tmp_path: Path
) -> None:
    accounts = [
        file("etc/passwd", b"root:x:0:0:root:/nowhere:/bin/tcsh\napp:x:1234:1235::/home/app:/usr/sbin/nologin"),
        file("etc/group", b"root:x:0:\ntty:x:5:\napp:x:1235:\nmore:x:77:other,app\nno:x:78:apple"),
        file("etc/nsswitch.conf", b"passwd: compat\ngroup: compat\nshadow: compat\n"),
        file("etc/shells", b"/bin/bash"),
        whiteout("etc/resolv.conf"),
        symlink("etc/resolv.conf", "/run/somewhere/resolv.conf"),
    ]
    places = [
        folder("run", mode=0o755),
        folder("run/app", mode=0o750, uid=1234, gid=1235),
        file("var/lib/docker/kept", b"by the image"),
        folder("usr/lib", mode=0o711),
        folder("root", mode=0o700),
        file("root/capable", b"x", mode=0o755, xattrs={"security.capability": _CAPABILITY}),
    ]
    tool = [folder("opt"), folder("opt/it's"), file("opt/it's/show", _SHOW.encode(), mode=0o755)]
    small = [layer(folder("layers"), file(f"layers/{n}"), file("last", b"%d\n" % n)) for n in range(_LAYERS - 2)]
    image = make_image(
        tmp_path / "debian",
        [debian, layer(*_WITHOUT_INIT, *_WITHOUT_SSHD, *accounts, *places, *tool), *small],
        {
            "env": ["PATH=/opt/it's:/usr/bin:/bin", f"GREETING={_GREETING}"],
            "workingdir": "/srv/not there",
            "user": "app",
            "entrypoint": "show",
        },
    )
    host.succeed("vm", "run", "--detach", "--name", "debian", "--image", image, "--memory", "512M", home=home)

    def ask(*words: str, options: Sequence[str] = ()) -> str:
        return host.succeed("vm", "exec", *options, "debian", "--", *words, home=home).decode()

    assert ask("show", "1") == f"<1><{_GREETING}></srv/not there></root><0:0:0>written\n"
    shown = ask("show", options=["--user", "image"])
    assert shown == f"<{_GREETING}></srv/not there></home/app><1234:1235:1235 77>written\n"
    assert ask("printf", "<%s>", *_WILD) == "".join(f"<{word}>" for word in _WILD)
    assert "GNU tar" in ask("tar", "--version")
    for status, script in ((255, "exit 255"), (3, "exit 3"), (137, "kill -9 $$")):
        assert host.banger("vm", "exec", "debian", "--", "sh", "-c", script, home=home).returncode == status
    assert host.banger("vm", "exec", "debian", "--", "no-such-program", home=home).returncode == 127
    assert ask("sh", "-c", "cat /last; ls /layers | wc -l").split() == [str(_LAYERS - 3), str(_LAYERS - 2)]
    assert ask("sh", "-c", "test -L /etc/resolv.conf || echo file").strip() == "file"
    # What lies over the image shows what the image has there.
    assert ask("stat", "-c", "%a %u:%g", "/run/app", "/usr/lib", "/etc").split("\n")[:3] == [
        "750 1234:1235",
        "711 0:0",
        "755 0:0",
    ]
    assert ask("cat", "/var/lib/docker/kept") == "by the image"
    # More than dropbear takes.
    long = "\n".join(f"echo 'line {number}' >/dev/null" for number in range(1000)) + "\necho $#; exit 7"
    done = host.banger("vm", "exec", "debian", "--", "sh", "-c", long, "sh", "a", "b", home=home)
    assert (done.stdout, done.returncode) == (b"2\n", 7), done.stderr
    # A shell of root's own, there.
    said = host.succeed("vm", "ssh", "debian", stdin=b'pwd; echo "$PATH"; echo $shell\n', home=home)
    assert said.decode().split("\n") == ["/srv/not there", "/opt/it's:/usr/bin:/bin", "/bin/tcsh", ""]
    machine = json.loads(host.succeed("vm", "show", "debian", home=home))
    assert copy_back(host, home, machine, tmp_path) == b"by sftp"
    # While it runs, its disk may be half written.
    host.succeed("vm", "stop", "debian", home=home)
    disk = machine["disks"]["work"]["path"]
    told = subprocess.run(["debugfs", "-R", "ea_list /capable", disk], capture_output=True, check=True).stdout
    assert _CAPABILITY.hex(" ") in told.decode()
    host.succeed("vm", "delete", "debian", home=home)
    host.assert_nothing_left(home)


def copy_back(host: Host, home: Home, machine: Mapping[str, str], place: Path) -> bytes:
    """What a file holds after scp took it there and back."""
    known = home.state / "vms" / machine["id"] / "known_hosts"
    options = [
        f"UserKnownHostsFile={known}",
        f"HostKeyAlias={machine['name']}",
        f"IdentityFile={home.state}/ssh/id_ed25519",
    ]
    argv = ["scp", "-q", "-F", "none", *(word for option in options for word in ("-o", option))]
    there = f"root@{machine['address']}:/tmp/copied"
    (place / "sent").write_bytes(b"by sftp")
    host.inside(*argv, str(place / "sent"), there)
    host.inside(*argv, there, str(place / "back"))
    return (place / "back").read_bytes()


def test_an_image_of_one_static_program_runs_it_as_the_image_s_user(
    host: Host, home: Home, hello: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    subprocess.run(["gcc", "-static", "-Os", "-o", program, hello], check=True)
    image = make_image(
        tmp_path / "scratch",
        [layer(file("hello", program.read_bytes(), mode=0o755), file("data", b"data"))],
        {"entrypoint": "/hello", "cmd": ["9"], "user": "1234:77", "workingdir": "/work"},
    )
    done = host.banger("vm", "run", "--rm", "--image", image, "--memory", "256M", "--entrypoint", "--", "7", home=home)
    assert (done.stdout, done.returncode) == (b"/hello 1234:77 /work /\n", 7), done.stderr
    # As root, without its entrypoint; and what is not there, or is no program.
    script = "/hello 3; echo $?; /gone; echo $?; /data; echo $?"
    done = host.banger("vm", "run", "--rm", "--image", image, "--memory", "256M", "--", "sh", "-c", script, home=home)
    assert done.stdout.decode().split("\n") == ["/hello 0:0 /work /root", "3", "127", "126", ""], done.stderr
    host.assert_nothing_left(home)


def test_an_image_without_an_entrypoint_is_refused_before_there_is_a_machine(
    host: Host, home: Home, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "nothing", [layer(file("data"))], {"env": "A=b"})
    for name in (image, "debian-bookworm"):
        done = host.banger("vm", "run", "--json", "--image", name, "--entrypoint", home=home)
        assert done.returncode == 1
        assert json.loads(done.stderr.splitlines()[-1])["error"]["reason"] == "bad-input"
    host.assert_nothing_left(home)


def test_an_image_of_another_libc_with_odd_links_and_accounts_is_reached(
    host: Host, home: Home, hello: Path, tmp_path: Path
) -> None:
    program, libc = build_with_musl(hello, tmp_path)
    busybox = Path("/usr/bin/busybox").read_bytes()
    image = make_image(
        tmp_path / "musl",
        [
            layer(
                *(folder(name) for name in ("bin", "sbin", "lib", "private", "private/etc", "home", "home/root")),
                file("bin/hello", program, mode=0o755),
                file("lib/ld-musl-x86_64.so.1", libc, mode=0o755),
                file("bin/busybox", busybox, mode=0o755),
                symlink("sbin/init", "/bin/busybox"),
                symlink("etc", "/private/etc"),
                file("private/etc/passwd", b"daemon:x:1:1::/:/bin/false\nroot:!:0:0:root:/:/sbin/nologin"),
                file("private/etc/inittab", b"::sysinit:/sbin/openrc sysinit\n::ctrlaltdel:/sbin/reboot\n"),
                symlink("root", "home/root"),
                file("home/root/kept", b"not lost"),
                symlink("lib/modules", "/nowhere/modules"),
                symlink("run", "/var/run"),
                symlink("usr", "nowhere/usr"),
                symlink("proc", "/dev"),
            )
        ],
        {"user": "nobody"},
    )
    host.succeed("vm", "run", "--detach", "--name", "musl", "--image", image, "--memory", "256M", home=home)

    def ask(*words: str) -> str:
        return host.succeed("vm", "exec", "musl", "--", *words, home=home).decode()

    assert ask("/bin/hello") == "/bin/hello 0:0 /home/root /root\n"
    script = "readlink /etc; cat /etc/hostname; ls -d /lib/modules/*/kernel /tmp/; stat -c %a /tmp; cat /proc/1/comm"
    release = Path(ask("sh", "-c", "echo /lib/modules/*").strip()).name
    assert ask("sh", "-c", script).split("\n") == [
        "/private/etc",
        "musl",
        f"/lib/modules/{release}/kernel",
        "/tmp/",
        "1777",
        "init",
        "",
    ]
    refused = host.banger("vm", "exec", "--user", "image", "musl", "--", "/bin/hello", home=home)
    assert refused.returncode == 125
    assert b"'nobody'" in refused.stderr
    host.succeed("vm", "stop", "musl", home=home)
    host.succeed("vm", "start", "musl", home=home)
    assert ask("sh", "-c", "cat /etc/hostname; grep -c ^root: /etc/passwd") == "musl\n1\n"
    host.succeed("vm", "delete", "musl", home=home)
    host.assert_nothing_left(home)


def build_with_musl(source: Path, place: Path) -> tuple[bytes, bytes]:
    """A dynamic program and the libc that it needs."""
    root = place / "musl-root"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=extract", "--include=musl-dev", "trixie", root, find_mirrors(None).debian],
        check=True,
    )
    at = root / "usr/lib/x86_64-linux-musl"
    argv = [
        "gcc",
        "-nostdinc",
        "-isystem",
        root / "usr/include/x86_64-linux-musl",
        "-nostdlib",
        "-no-pie",
        "-fno-stack-protector",
    ]
    argv += [at / "crt1.o", at / "crti.o", source, f"-L{at}", "-lc", at / "crtn.o", "-o", place / "dynamic"]
    subprocess.run([*argv, "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"], check=True)
    return (place / "dynamic").read_bytes(), (at / "libc.so").read_bytes()


def test_an_image_with_systemd_and_without_sshd_answers_when_systemd_does(
    host: Host, home: Home, debian: bytes, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "systemd", [debian, layer(*_WITHOUT_SSHD)], {"env": "WHAT=is it"})
    script = "cat /proc/1/comm; echo $WHAT; grep -c eth0 /proc/net/route; systemctl is-active basic.target"
    done = host.banger("vm", "run", "--rm", "--image", image, "--memory", "512M", "--", "sh", "-c", script, home=home)
    assert done.stdout == b"systemd\nis it\n2\nactive\n", done.stderr
    assert done.returncode == 0
    host.assert_nothing_left(home)


def test_the_image_s_own_sshd_lets_in_a_root_who_is_locked_and_expired_and_has_no_shell(
    host: Host, home: Home, debian: bytes, tmp_path: Path
) -> None:
    wrong = layer(
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/gone\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"),
        file("etc/shadow", b"root:!:0:0:9:7:7:100:\nsshd:!:1::::::", mode=0o640, gid=42),
        folder("etc/ssh"),
        folder("etc/ssh/sshd_config.d"),
        file("etc/ssh/sshd_config.d/10-image.conf", b"UsePAM no\n"),
    )
    image = make_image(tmp_path / "sshd", [debian, wrong], {})
    script = "cat /proc/[0-9]*/comm | grep -o -e dropbear -e ^sshd | sort -u; grep ^sshd: /etc/shadow"
    done = host.banger("vm", "run", "--rm", "--image", image, "--memory", "512M", "--", "sh", "-c", script, home=home)
    assert done.stdout == b"sshd\nsshd:!:1::::::\n", done.stderr
    assert done.returncode == 0
    host.assert_nothing_left(home)
