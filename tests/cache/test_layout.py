import stat
import threading
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Store


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
