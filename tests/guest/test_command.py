"""Commands for a guest: real shells judge what they are given."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from banger.guest import command as module
from banger.guest.command import Surroundings, format_command, format_for_any_shell, format_shell

_PLAIN = Surroundings()
# Of the shells that root may have in an image, those that are here; the guest's test has a csh.
_SHELLS = [shell for shell in ("sh", "bash", "busybox sh", "zsh", "fish", "tcsh") if shutil.which(shell.split()[0])]

_ECHO = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"
_WORDS = st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=()), max_size=12), max_size=5)


def _shell(command: str, shell: str = "sh") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([shell, "-c", os.fsencode(command)], capture_output=True, cwd="/")


@settings(max_examples=40)
@given(_WORDS)
@example(["$HOME", "`id`", "a;b", "'", '"', "\n", "\\", "*", "~", "", "-n", "a=b", "#", "!!", "\udcff", "\udcc3\udcbc"])
def test_any_words_arrive_through_a_shell_as_they_were_given(words: list[str]) -> None:
    try:
        [os.fsencode(word) for word in words]
    except UnicodeEncodeError:
        # A lone surrogate that stands for no byte can be in no argument list.
        return
    done = _shell(format_command(["/usr/bin/printf", "%s\\0", "first", *words], _PLAIN, None))
    assert done.returncode == 0
    # As bytes: two lone surrogates may stand for those of one character.
    assert done.stdout.split(b"\0") == [os.fsencode(word) for word in ("first", *words, "")]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("program", ["if", "while", "A=b", "!", "{", "time", "function", "[[", "two words", "~", "#"])
def test_the_first_word_is_a_program_and_nothing_of_the_shell_s(tmp_path: Path, shell: str, program: str) -> None:
    (tmp_path / program).write_text("#!/bin/sh\necho ran $1\n")
    (tmp_path / program).chmod(0o755)
    command = format_command([program, "it"], _PLAIN, None)
    done = subprocess.run([shell, "-c", f'PATH="{tmp_path}"; {command}'], capture_output=True)
    assert done.stdout == b"ran it\n", done.stderr


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_status_is_the_command_s_and_the_one_that_ssh_has_too_is_left_in_a_file(
    tmp_path: Path, status: int
) -> None:
    left = tmp_path / "status file"
    done = _shell(format_command(["sh", "-c", f"exit {status}"], _PLAIN, str(left)))
    assert done.returncode == status
    assert (left.read_text() if left.exists() else None) == ("255\n" if status == 255 else None)


def test_a_death_by_signal_is_128_and_the_signal() -> None:
    assert _shell(format_command(["sh", "-c", "kill -9 $$"], _PLAIN, "/nowhere/status")).returncode == 137


def test_a_command_that_is_not_there_is_127() -> None:
    assert _shell(format_command(["/no such program"], _PLAIN, None)).returncode == 127


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of the guest's runtime; `as` tells whom it was asked for."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in ("busybox", "env"):
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "as").write_text('#!/bin/sh\necho "as $1"\nshift\nHOME=/home/user exec "$@"\n')
    (folder / "as").chmod(0o755)
    monkeypatch.setattr(module, "_RUNTIME", str(folder))
    return folder


def test_a_command_runs_in_its_folder_which_is_made_or_not_at_all(tmp_path: Path, runtime: Path) -> None:
    folder = tmp_path / "it's a folder/in one"
    command = [sys.executable, "-I", "-c", _ECHO]
    for _again in range(2):
        done = _shell(format_command(command, Surroundings(folder=str(folder)), None))
        assert json.loads(done.stdout) == [str(folder)], done.stderr
    (tmp_path / "file").touch()
    done = _shell(format_command(command, Surroundings(folder=str(tmp_path / "file")), None))
    assert done.returncode != 0
    assert done.stdout == b""


def test_variables_reach_a_command_as_they_are_and_say_where_it_is(tmp_path: Path, runtime: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\nprintf %s "$WILD"\n')
    tool.chmod(0o755)
    wild = 'it\'s "$HOME" `id` \\ !! 100%\n\t*\\\n'
    around = Surroundings(env=(("PATH", f"{tmp_path}:/usr/bin:/bin"), ("WILD", wild)))
    assert _shell(format_command(["tool"], around, None)).stdout == wild.encode()


def test_a_program_with_an_equals_sign_in_its_name_is_no_variable(tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "A=b").write_text("#!/bin/sh\necho ran $1\n")
    (tmp_path / "A=b").chmod(0o755)
    around = Surroundings(env=(("PATH", f"{tmp_path}:/usr/bin:/bin"),))
    assert _shell(format_command(["A=b", "it"], around, None)).stdout == b"ran it\n"


def test_the_image_s_variables_go_before_those_of_its_user(runtime: Path) -> None:
    around = Surroundings(env=(("PATH", "/usr/bin:/bin"), ("X", "1")), user="app:more")
    shown = _shell(format_command(["sh", "-c", "echo $HOME $X"], around, None)).stdout
    assert shown == b"as app:more\n/home/user 1\n"
    homely = Surroundings(env=(("HOME", "/srv"),), user="app")
    assert _shell(format_command(["sh", "-c", "echo $HOME"], homely, None)).stdout == b"as app\n/srv\n"


def test_a_shell_is_a_plain_login_unless_the_image_says_something() -> None:
    assert format_shell(_PLAIN) is None


def test_a_shell_is_root_s_own_in_the_folder_with_the_variables(tmp_path: Path, runtime: Path) -> None:
    line = format_shell(Surroundings(env=(("X", "a b"),), folder=str(tmp_path / "new"), user="app"))
    assert line is not None
    shell = shutil.which("bash")
    done = subprocess.run(
        ["sh", "-c", line], input=b'echo "$X"; pwd; echo $BASH_VERSION', capture_output=True, env={"SHELL": str(shell)}
    )
    who, x, folder, version, _end = done.stdout.decode().split("\n")
    assert (who, x, folder) == ("as app", "a b", str(tmp_path / "new"))
    assert version


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_line_comes_through_every_shell(runtime: Path, shell: str) -> None:
    words = [chr(code) for code in range(1, 128)] + ["ünï ☃", "\udcff\udcfe", "!!", "\\\\n", "'\\''", ""]
    line = format_for_any_shell(format_command(["/usr/bin/printf", "%s\\0", *words], _PLAIN, None))
    done = subprocess.run([*shell.split(), "-c", line], capture_output=True)
    assert [os.fsdecode(word) for word in done.stdout.split(b"\0")] == [*words, ""], done.stderr
    assert done.returncode == 0
    failing = format_for_any_shell(format_command(["sh", "-c", "exit 7"], _PLAIN, None))
    assert subprocess.run([*shell.split(), "-c", failing]).returncode == 7


def test_the_wrapped_line_has_nothing_that_a_shell_reads_differently() -> None:
    wild = "".join(map(chr, range(1, 300)))
    script, argument = format_for_any_shell(wild).split("' '")
    assert script == """/bin/sh -c 'eval "$(/run/banger/bin/busybox printf %b "$0")\""""
    assert all(" " <= character <= "~" and character not in "'!" for character in argument[:-1])
    # A backslash only ever before a digit: fish joins two of them.
    assert all(part[:1] == "0" for part in argument.split("\\")[1:])
