"""The folders of a store, who may open it, and what is refused."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from banger.errors import BangerError, Reason
from cache import Store

if TYPE_CHECKING:
    from conftest import Start


def test_a_new_store_is_private_and_tells_backup_programs_to_pass_by(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "deep" / "store")
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert (store.root / "CACHEDIR.TAG").read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert (store.root / "version").read_text() == "1\n"
    assert list((store.root / "tmp").iterdir()) == []


def test_an_existing_folder_becomes_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Store.open(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_opening_again_finds_what_was_put(store: Store) -> None:
    obj = store.put_bytes(b"kept")
    assert Store.open(store.root) == store
    assert Store.open(store.root).has(obj)


def test_a_relative_root_does_not_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open(Path("store"))
    monkeypatch.chdir("/")
    assert store.path(store.put_bytes(b"x")).is_relative_to(tmp_path)


def test_many_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    failed: list[BaseException] = []
    barrier = threading.Barrier(8)

    def make() -> None:
        barrier.wait()
        try:
            Store.open(tmp_path / "a" / "store").put_bytes(b"x")
        except BangerError as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_newer_format_is_refused_and_not_touched(store: Store) -> None:
    (store.root / "version").write_text("2\n")
    with pytest.raises(BangerError) as caught:
        Store.open(store.root)
    assert caught.value.reason is Reason.WRONG_STATE
    assert "newer" in caught.value.hint
    assert (store.root / "version").read_text() == "2\n"


@pytest.mark.parametrize("content", ["", "one", "0", "-1", "1.5", "\0" * 4096])
def test_a_damaged_format_number_is_said_to_be_so(store: Store, content: str) -> None:
    (store.root / "version").write_text(content)
    with pytest.raises(BangerError) as caught:
        Store.open(store.root)
    assert caught.value.reason is Reason.CORRUPT
    assert str(store.root) in caught.value.hint


def test_a_file_in_the_place_of_the_store_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(BangerError):
        Store.open(tmp_path / "store")
    assert (tmp_path / "store").read_text() == "mine"


AS_ANOTHER = """
import os, sys
from pathlib import Path
from banger.errors import BangerError
from cache import Store
os.setgid(65534); os.setuid(65534)
try:
    Store.open(Path(sys.argv[1]))
except BangerError as error:
    print(error.reason, error.message, error.hint, sep="|")
else:
    print("opened")
"""
_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that everybody can reach and write to, as /tmp."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def open_as_another(start: Start, root: Path) -> list[str]:
    out, err = start(AS_ANOTHER, root).communicate(timeout=60)
    assert err == ""
    return str(out).strip().split("|")


def list_all(folder: Path) -> list[tuple[str, int, int]]:
    found = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), stat.S_IMODE(each.st_mode), each.st_uid) for path, each in found]


@_NEEDS_ROOT
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_store_of_somebody_else_is_refused_before_anything_is_made(common: Path, start: Start, mode: int) -> None:
    """Also one that everybody may write to: it is not a question of mode bits."""
    root = Store.open(common / "store").root
    root.chmod(mode)
    before = list_all(common)
    reason, message, hint = open_as_another(start, root)
    assert reason == Reason.NO_PERMISSION
    assert message == f"the store at {root} belongs to root, and this is nobody"
    assert "run this as that user" in hint
    assert list_all(common) == before


@_NEEDS_ROOT
def test_an_empty_folder_of_somebody_else_does_not_become_a_store(common: Path, start: Start) -> None:
    (common / "store").mkdir()
    (common / "store").chmod(0o777)
    assert open_as_another(start, common / "store")[0] == Reason.NO_PERMISSION
    assert list((common / "store").iterdir()) == []


@_NEEDS_ROOT
def test_root_does_not_open_the_store_of_a_user(common: Path, start: Start) -> None:
    """As `sudo` with HOME kept would: what root leaves there the user cannot remove."""
    assert open_as_another(start, common / "store") == ["opened"]
    before = list_all(common)
    assert {uid for _, _, uid in before} == {65534}
    with pytest.raises(BangerError) as caught:
        Store.open(common / "store")
    assert caught.value.reason is Reason.NO_PERMISSION
    assert caught.value.message == f"the store at {common / 'store'} belongs to nobody, and this is root"
    assert list_all(common) == before


@_NEEDS_ROOT
def test_a_user_without_a_name_is_told_by_number(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 54321, 54321)
    with pytest.raises(BangerError, match="belongs to user 54321, and"):
        Store.open(tmp_path / "store")


def test_a_link_to_a_folder_of_ones_own_is_as_good_as_the_folder(tmp_path: Path) -> None:
    (tmp_path / "large-disk").mkdir()
    (tmp_path / "store").symlink_to("large-disk")
    obj = Store.open(tmp_path / "store").put_bytes(b"kept")
    assert Store.open(tmp_path / "large-disk").path(obj).read_bytes() == b"kept"


@_NEEDS_ROOT
def test_a_link_to_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    (tmp_path / "store").symlink_to("theirs")
    with pytest.raises(BangerError, match="belongs to nobody"):
        Store.open(tmp_path / "store")
    assert list((tmp_path / "theirs").iterdir()) == []


@_NEEDS_ROOT
def test_a_link_that_somebody_else_made_to_ones_own_folder_is_fine(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "store").symlink_to("mine")
    os.chown(tmp_path / "store", 65534, 65534, follow_symlinks=False)
    assert Store.open(tmp_path / "store").put_bytes(b"kept").size_bytes == 4
