"""Where things are, and that nobody else put them there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from banger.paths import Paths, ensure_private


def test_folders_are_those_of_the_xdg_specification() -> None:
    paths = Paths.from_environment({"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/mine"})
    assert paths.config == Path("/home/me/.config/banger")
    assert paths.state == Path("/home/me/.local/state/banger")
    assert paths.store == Path("/home/me/.cache/banger")
    assert paths.runtime == Path("/run/mine/banger")
    assert paths.machines == Path("/home/me/.local/state/banger/vms")


def test_variables_move_folders_and_relative_ones_are_ignored() -> None:
    environment = {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "here", "XDG_CACHE_HOME": ""}
    paths = Paths.from_environment(environment)
    assert paths.config == Path("/c/banger")
    assert paths.state == Path("/h/.local/state/banger")
    assert paths.store == Path("/h/.cache/banger")


def test_without_a_home_the_one_of_the_account_is_used() -> None:
    assert Paths.from_environment({}).config.is_absolute()


def test_without_a_home_and_an_account_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 987_654_321)
    with pytest.raises(BangerError) as caught:
        Paths.from_environment({})
    assert caught.value.reason is Reason.NOT_FOUND


def test_without_a_runtime_folder_an_ordinary_user_gets_one_whose_owner_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last folder of the path is the one in /tmp: its parent is nobody else's to prepare."""
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    assert Paths.from_environment({"HOME": "/h"}).runtime == Path("/tmp/banger-1234")


def test_a_private_folder_is_made_and_its_mode_mended(tmp_path: Path) -> None:
    folder = ensure_private(tmp_path / "a" / "b")
    folder.chmod(0o755)
    assert ensure_private(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BangerError) as caught:
        ensure_private(tmp_path / "folder")
    assert caught.value.reason is Reason.NO_PERMISSION


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.chown(tmp_path / "folder", 65534, 65534)
    with pytest.raises(BangerError) as caught:
        ensure_private(tmp_path / "folder")
    assert caught.value.reason is Reason.NO_PERMISSION


def test_sockets_do_not_lie_where_the_end_of_a_session_removes_them() -> None:
    with_session = Paths.from_environment({"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/7"})
    assert with_session.runtime == Paths.from_environment({"HOME": "/home/me"}).runtime
