"""Names whose files were damaged: what is not given back, what is noticed, and what a user is told to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Record, Store, key_of
from catalog.local import Named, Names
from catalog.origin import tell_remake

_KEY = key_of("rootfs", 1, {}, {})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def names(tmp_path: Path) -> Names:
    return Names(tmp_path / "images", "image")


def _put(names: Names, store: Store, name: str = "box") -> Named:
    files = {"rootfs": store.put_bytes(b"disk"), "home": store.put_bytes(b"disk home")}
    records = {_KEY: Record("rootfs", 1, {}, {}, files, 1.0, 2.0)}
    return names.put(name, store, files, records, {"source": "oci", "reference": "debian:12"})


def _damage(path: Path, content: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(content)
    path.chmod(0o400)


@pytest.mark.parametrize("role", ["rootfs", "home"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_what_a_damaged_name_gives_back_is_refused_with_what_to_do(
    names: Names, store: Store, role: str, damage: str
) -> None:
    made = _put(names, store)
    shutil.rmtree(store.root)
    store = Store.open(store.root)
    path = made.path(role)
    if damage == "gone":
        path.unlink()
    else:
        _damage(path, b"X" + path.read_bytes()[1:] if damage == "flipped" else b"di")
    with pytest.raises(BangerError) as caught:
        made.restore(store)
    assert caught.value.reason is Reason.CORRUPT
    assert caught.value.message == f"the image 'box' is damaged: its file {role!r} is not what it was"
    assert caught.value.hint == "banger image build box"
    assert not store.has(made.files[role])
    assert store.find_record(_KEY) is None, "a record is a promise about all of its outputs"
    assert list(store.verify()) == []


@pytest.mark.parametrize("role", ["rootfs", "home"])
def test_a_name_is_whole_when_its_files_are_there_in_their_size_or_as_they_were(
    names: Names, store: Store, role: str, tmp_path: Path
) -> None:
    made = _put(names, store)
    assert made.is_whole(store, read=False)
    assert made.is_whole(store, read=True)
    path, content = made.path(role), made.path(role).read_bytes()
    # What is the store's object is not read, a copy is.
    _damage(path, b"X" + content[1:])
    assert made.is_whole(store, read=True)
    path.unlink()
    path.write_bytes(content)
    assert made.is_whole(store, read=True)
    path.write_bytes(b"X" + content[1:])
    assert made.is_whole(store, read=False)
    assert not made.is_whole(store, read=True)
    assert not made.is_whole(Store.open(tmp_path / "empty"), read=True)
    for content in (b"di", b""):
        path.write_bytes(content)
        assert not made.is_whole(store, read=False)
    path.unlink()
    assert not made.is_whole(store, read=False)
    path.symlink_to("manifest.json")
    assert not made.is_whole(store, read=True)


def test_one_who_replaces_a_name_may_find_it_damaged(names: Names, store: Store) -> None:
    made = _put(names, store)
    _put(names, store, "other")
    assert names.find("box", may_be_damaged=True) == made
    (made.folder / "manifest.json").write_bytes(b"{")
    assert names.find("box", may_be_damaged=True) is None
    assert list(names.list_words()) == ["box", "other"]
    (made.folder / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(BangerError) as caught:
        names.find("box", may_be_damaged=True)
    assert caught.value.reason is Reason.WRONG_STATE, "another banger can read it"


@pytest.mark.parametrize(
    ("what", "details", "expected"),
    [
        ("image", {"source": "oci", "reference": "debian:12"}, "banger image build 'a b'"),
        ("image", {"source": "recipe"}, "banger image build 'a b'"),
        ("image", {"source": "catalog", "reference": "host/catalog:x"}, "banger image pull 'a b'"),
        ("image", {"source": "oci", "reference": "-"}, "… | banger image build - --name 'a b'"),
        ("image", {"source": "recipe-file", "path": "/a b"}, "banger image build --name 'a b' --recipe '/a b'"),
        ("image", {"source": "promoted"}, "banger image promote VM 'a b'"),
        ("image", {"source": "register"}, "banger image register 'a b' --rootfs …"),
        ("image", {"source": "x", "reference": "y"}, "it came from: y"),
        ("image", {}, "it came from: unknown"),
        ("kernel", {"source": "trixie/linux"}, "banger kernel build 'a b'"),
        ("kernel", {"source": "catalog"}, "banger kernel pull 'a b'"),
        ("kernel", {"source": "import"}, "banger kernel import 'a b' FILE"),
    ],
)
def test_what_makes_a_name_anew_depends_on_where_it_is_from(what: str, details: dict[str, str], expected: str) -> None:
    assert tell_remake(what, "a b", details).endswith(expected)
