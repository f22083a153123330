"""From a name to what it is made of, from what is here alone: nothing is asked, and nothing written."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Digest
from pipelines.naming import Target, plan_named
from pipelines.oci.image import plan_oci_image, resolve
from pipelines.oci.layout import LayoutSource
from pipelines.oci.limits import Limits
from pipelines.read_only import ReadOnlyStore
from pipelines.reporter import Silent
from pipelines.step import Step
from pipelines.targets import Targets
from pipelines.why import NEVER_BUILT, State
from tests.oci.layers import file, layer, write_layout
from tests.pipelines.house import DETAILS, House, states


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_looking_writes_nothing_and_tidies_nothing(house: House) -> None:
    target = house.plan()
    house.build(target.naming)
    house.forget(target, "home:mine")
    (house.store.root / "tmp/left-by-somebody-dead").mkdir()
    before = house.listing()
    house.find("mine")
    house.find("image:mine")
    house.why(house.plan(suite="two"))
    with pytest.raises(BangerError):
        house.find("nothing-like-it")
    assert house.listing() == before


def test_a_store_that_is_not_there_is_not_made(house: House) -> None:
    shutil.rmtree(house.store.root)
    assert {each.state for each in house.why(house.plan()).values()} == {State.MISS}
    assert not house.store.root.exists()


def test_what_an_image_holds_counts_as_here_since_it_gives_it_back(house: House) -> None:
    house.build(house.plan().naming)
    shutil.rmtree(house.store.root)
    assert set(states(house.find("mine")).values()) == {"hit"}
    assert not house.store.root.exists()
    home = house.images.get("mine").path("home")
    home.unlink()
    home.write_bytes(b"cut short")
    found = house.find("mine")
    assert found["home:mine"].why == "its record is there, its objects are missing: home"
    assert found["rootfs:mine"].state is State.HIT


def test_a_read_only_store_refuses_whoever_would_write(house: House) -> None:
    store = ReadOnlyStore.open(house.store.root)
    for write in (
        lambda: store.put_bytes(b"new"),
        lambda: store.temporary_dir(),
        lambda: store.lock(Digest("0" * 64), ""),
    ):
        with pytest.raises(AssertionError):
            write()


def test_a_recipe_that_was_never_built_shows_the_tree_that_it_would_be_built_from(house: House) -> None:
    found = house.find("debian-bookworm")
    assert list(found)[:4] == [
        "image:debian-bookworm",
        "rootfs:debian-bookworm",
        "system:debian-bookworm",
        "lock:image-debian-bookworm",
    ]
    assert set(states(found).values()) == {"miss"}


@pytest.mark.parametrize(
    "text", ["kernel:debian-6.12", "modules:debian-6.12", "lock:kernel-debian-6.12", "lock:npm-mise"]
)
def test_a_step_is_found_by_the_name_that_progress_shows(house: House, text: str) -> None:
    assert next(iter(house.find(text))) == text


def test_what_was_made_from_a_recipe_is_shown_from_there_and_what_was_pulled_is_not(house: House) -> None:
    artifacts = house.plan().artifacts
    sources = {"debian-bookworm": ("recipe", "register"), "debian-6.12": ("trixie/linux-image-cloud-amd64", "catalog")}
    for (name, (made, brought)), names in zip(sources.items(), (house.images, house.kernels), strict=True):
        for source, is_whole in ((made, True), (brought, False)):
            house.build(plan_named(house.store, names, name, artifacts, {**DETAILS, "source": source}).naming)
            assert any(step.startswith("lock:") for step in house.find(name)) is is_whole


def test_an_image_whose_recipe_is_gone_is_shown_as_it_was_made(house: House) -> None:
    details = {**DETAILS, "source": "recipe-file", "path": str(house.root / "gone/recipe.toml")}
    house.build(plan_named(house.store, house.images, "mine", house.plan().artifacts, details).naming)
    assert states(house.find("mine")) == {"image:mine": "hit", "rootfs:mine": "hit", "home:mine": "hit"}


def test_a_kernel_and_an_image_of_one_name_are_both_shown(house: House) -> None:
    house.build(house.plan().naming)
    vmlinux = Step("vmlinux:mine", "vmlinux", 1, house.make, ("vmlinux",))
    artifacts = {"vmlinux": vmlinux.output("vmlinux")}
    house.build(plan_named(house.store, house.kernels, "mine", artifacts, {"source": "import"}).naming)
    assert {"image:mine", "kernel:mine", "vmlinux:mine"} <= set(house.find("mine"))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("debian-bokworm", "debian-bookworm"),
        ("debian-6.21", "debian-6.12"),
        ("rootfs:debian-bookwrm", "rootfs:debian-bookworm"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(house: House, wrong: str, meant: str) -> None:
    with pytest.raises(BangerError) as caught:
        house.find(wrong)
    assert caught.value.reason is Reason.NOT_FOUND
    assert repr(meant) in caught.value.hint


@pytest.mark.parametrize("text", ["debian:12", "ghcr.io/owner/tool@sha256:" + "0" * 64, "oci:somewhere"])
def test_what_was_never_resolved_here_is_refused_and_not_asked(house: House, text: str) -> None:
    with pytest.raises(BangerError) as caught:
        house.find(text)
    assert caught.value.reason is Reason.NOT_FOUND
    assert "banger image build" in caught.value.hint


@pytest.mark.parametrize("text", ["", "-", "a b", "x" * 5000, "../..", "\x1b[2J", "A", "a=b", "*"])
def test_whatever_is_no_name_is_one_clear_error(house: House, text: str) -> None:
    with pytest.raises(BangerError) as caught:
        house.find(text)
    assert caught.value.reason is Reason.NOT_FOUND


def _resolve(house: House, place: Path) -> Target:
    """What `image build oci:PLACE --name mine` plans."""
    source = LayoutSource(place, "it")
    step, answer = resolve(house.store, source, Silent())
    details = {
        "kernel": "debian-6.12",
        "source": "oci",
        "reference": answer.reference,
        "digest": answer.digest,
        "manifest_digest": answer.manifest_digest,
    }
    artifacts = plan_oci_image("mine", step, answer, source, Limits())
    return plan_named(house.store, house.images, "mine", artifacts, details)


def test_an_image_that_was_resolved_here_shows_its_tree_when_its_source_is_gone(house: House) -> None:
    place = house.root / "layout"
    write_layout(place, {"it": [layer(file("one", b"1")), layer(file("two", b"2"))]})
    house.build(_resolve(house, place).naming)
    shutil.rmtree(place)
    for text in ("mine", f"oci:{place}:it"):
        found = house.find(text)
        assert sorted(each.kind for each in found.values()) == ["layer", "layer", "name", "oci-config", "oci-rootfs"]
        assert {each.state for each in found.values() if each.kind != "name"} == {State.HIT}
    assert states(house.find("mine"))["image:mine"] == "hit"
    assert [*house.find("rootfs:mine")] == [*house.find("home:mine")]


def test_images_that_came_from_standard_input_are_kept_apart(house: House) -> None:
    for name in ("one", "two"):
        place, archive = house.root / name, io.BytesIO()
        write_layout(place, {"it": [layer(file(name, name.encode()))]})
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path in sorted(place.rglob("*")):
                tar.add(path, str(path.relative_to(place)), recursive=False)
        archive.seek(0)
        with_input = Targets(house.store, house.images, house.kernels, stdin=archive)
        house.build(with_input.plan_image("-", name=name).naming)
    for name in ("one", "two"):
        assert set(states(house.find(name)).values()) == {"hit"}


def test_of_an_image_that_was_resolved_anew_the_layer_that_changed_is_missing(house: House) -> None:
    place = house.root / "layout"
    write_layout(place, {"it": [layer(file("one", b"1")), layer(file("two", b"2"))]})
    house.build(_resolve(house, place).naming)
    shutil.rmtree(place)
    write_layout(place, {"it": [layer(file("one", b"1")), layer(file("two", b"new"))]})
    _resolve(house, place)
    found = house.find("mine")
    assert sorted(str(each.state) for each in found.values() if each.kind == "layer") == ["hit", "miss"]
    [missing] = [each for each in found.values() if each.kind == "layer" and each.state is State.MISS]
    assert found["rootfs:mine"].why == f"waits for {missing.name}"
    [config] = [each for each in found.values() if each.kind == "oci-config"]
    assert {change.what for change in config.changes} == {"parameter answer", "parameter config"}


def test_a_recipe_of_a_users_own_is_shown_by_its_path(house: House) -> None:
    place = house.root / "Own Recipe"
    place.mkdir()
    (place / "motd").write_text("hello")
    (place / "recipe.toml").write_text(
        'name = "own"\nsuite = "trixie"\npackages = ["jq"]\n[[file]]\nsource = "motd"\ntarget = "/etc/motd"\n'
        '[[run]]\ncommand = "true"\n'
    )
    for text in (str(place), str(place / "recipe.toml")):
        found = house.find(text)
        assert {"image:own", "run-1:own", "files:own", "lock:recipe-own", "kernel:debian-6.12"} <= set(found)
        assert found["files:own"].why == NEVER_BUILT
        assert "lock:recipe-own" in found["system:own"].why
