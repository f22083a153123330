"""Publishing to a real registry: what `oras` and `cosign` see there, what is sent again, who may change a catalog."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from banger.errors import BangerError, Reason
from banger.settings import load_settings
from banger.targets import make_catalogs
from cache import Store
from catalog.bundle import Kind, parse_bundle
from pipelines.bundle import pack
from pipelines.oci.signatures import load_signing_key
from pipelines.publish import Published, parse_place, parse_version, publish
from tests.oci.team import PASSWORD, Team, register_kernel, targets_of
from tests.oci.user import BIN


def _cosign(team: Team, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD, "HOME": str(team.folder)}
    return subprocess.run(["cosign", *words], cwd=team.folder, env=environment, capture_output=True)


def _verify(team: Team, reference: str, key: str = "team.pub") -> int:
    options = ["--insecure-ignore-tlog", "--allow-http-registry", "--key", key]
    return _cosign(team, "verify", *options, reference).returncode


def test_oras_shows_a_bundle_and_pulls_its_files(team: Team, tmp_path: Path) -> None:
    team.build("tool", b"hello")
    published = team.publish("tool", "--version", "1.2+3")
    manifest = team.manifest("images/tool:1.2_3")
    assert manifest["artifactType"] == "application/vnd.banger.image.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.banger.image.config.v1+json"
    assert published["reference"] == f"{team.place}/images/tool@{team.digest('images/tool', '1.2_3')}"
    folder = tmp_path / "pulled"
    words = ["oras", "pull", "--plain-http", published["reference"], "-o", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    files = {"bundle.json", "rootfs.erofs.zst", "home.tar.zst", "oci-config.json.zst"}
    assert {path.name for path in folder.iterdir()} == files
    bundle = parse_bundle((folder / "bundle.json").read_bytes(), Kind.IMAGE)
    assert (bundle.name, bundle.version, bundle.kernel) == ("tool", "1.2+3", "debian-6.12")
    assert bundle.source["kind"] == "oci"
    # A path of the publisher's host is nobody's business.
    assert "reference" not in bundle.source
    assert {record.step for record in bundle.provenance.values()} == {"oci-rootfs", "oci-config"}
    unpacked = subprocess.run(["zstd", "-dc", folder / "rootfs.erofs.zst"], check=True, capture_output=True).stdout
    assert blake3(unpacked).hexdigest() == bundle.files["rootfs"].digest


def test_oras_shows_a_kernel_by_its_release_and_a_catalog_as_json(team: Team, tmp_path: Path) -> None:
    register_kernel(team.publisher, "debian-6.12")
    team.publish("debian-6.12", kind="kernel")
    manifest = team.manifest("kernels/debian-6.12:6.12.57_deb13-cloud-amd64")
    assert manifest["artifactType"] == "application/vnd.banger.kernel.v1"
    titles = [each["annotations"]["org.opencontainers.image.title"] for each in manifest["layers"]]
    assert titles == ["vmlinux.zst", "modules.erofs.zst", "initramfs.img.zst"]
    bundle = parse_bundle(team.blob(manifest["config"]["digest"]).read_bytes(), Kind.KERNEL)
    assert (bundle.version, bundle.runtime) == ("6.12.57+deb13-cloud-amd64", "0123456789ab")
    words = ["oras", "pull", "--plain-http", team.catalog, "-o", str(tmp_path / "pulled")]
    subprocess.run(words, check=True, capture_output=True)
    document = json.loads((tmp_path / "pulled/catalog.json").read_bytes())
    assert document["kernels"][0]["version"] == "6.12.57+deb13-cloud-amd64"
    assert team.manifest("catalog:stable")["artifactType"] == "application/vnd.banger.catalog.v1"


def test_the_second_publishing_uploads_nothing(team: Team) -> None:
    team.build("tool", b"hello")
    first = team.publish("tool")
    assert first["uploaded_blobs"] > 0
    assert (first["serial"], first["is_new"]) == (1, True)
    before = sorted(path for path in team.data.rglob("*"))
    again = team.publish("tool")
    assert (again["uploaded_blobs"], again["uploaded_bytes"], again["serial"], again["is_new"]) == (0, 0, 1, False)
    assert sorted(path for path in team.data.rglob("*")) == before


def test_a_fresh_job_that_builds_the_same_uploads_nothing(team: Team) -> None:
    team.build("tool", b"hello")
    team.publish("tool")
    job = team.make_user("job")
    job.environment |= {name: team.publisher.environment[name] for name in ("BANGER_SIGNING_KEY", "COSIGN_PASSWORD")}
    team.build("tool", b"hello", job)
    again = team.publish("tool", user=job)
    assert (again["uploaded_blobs"], again["serial"], again["is_new"]) == (0, 1, False)


def test_what_changed_is_all_that_is_sent_and_other_entries_stay(team: Team) -> None:
    for name in ("tool", "other"):
        team.build(name, name.encode())
        team.publish(name)
    before = team.read_catalog()
    team.build("tool", b"changed")
    published = team.publish("tool", "--version", "2")
    after = team.read_catalog()
    assert (before["serial"], after["serial"], published["serial"]) == (2, 3, 3)
    old, new = ({each["name"]: each for each in document["images"]} for document in (before, after))
    assert new["other"] == old["other"]
    assert new["tool"]["digest"] != old["tool"]["digest"]
    assert new["tool"]["version"] == "2"
    # Root, home and its configuration (which names its layers) differ, so do both documents; two signatures have a
    # payload and a config each.
    assert published["uploaded_blobs"] == 9


def test_the_real_cosign_verifies_what_was_signed(team: Team) -> None:
    team.build("tool", b"hello")
    published = team.publish("tool")
    team.make_keys("other")
    for reference in (published["reference"], team.catalog):
        assert _verify(team, reference) == 0
        assert _verify(team, reference, "other.pub") != 0


def test_what_the_real_cosign_signs_is_taken(team: Team) -> None:
    del team.publisher.environment["BANGER_SIGNING_KEY"]
    team.build("tool", b"hello")
    published = team.publish("tool")
    reader = team.make_reader("reader")
    assert reader.refusal("image", "pull", "tool")["reason"] == Reason.UNTRUSTED
    options = ["--yes", "--tlog-upload=false", "--allow-http-registry", "--key", "team.key"]
    for reference in (f"{team.place}/catalog@{team.digest('catalog', 'stable')}", published["reference"]):
        done = _cosign(team, "sign", *options, reference)
        assert done.returncode == 0, done.stderr.decode()
    assert reader.banger("image", "pull", "tool") == "tool\n"
    # And goes on from there.
    team.publisher.environment["BANGER_SIGNING_KEY"] = str(team.private_key)
    team.build("tool", b"changed")
    assert team.publish("tool")["serial"] == 2


def test_a_key_may_come_as_text_in_the_environment_or_as_a_file_by_an_option(team: Team) -> None:
    team.build("tool", b"hello")
    team.publisher.environment["BANGER_SIGNING_KEY"] = team.private_key.read_text()
    published = team.publish("tool")
    del team.publisher.environment["BANGER_SIGNING_KEY"]
    team.build("tool", b"changed")
    assert team.publish("tool", "--key", str(team.private_key))["serial"] == 2
    assert _verify(team, published["reference"]) == 0
    assert _verify(team, team.catalog) == 0


def test_publishing_without_a_key_says_so_and_leaves_a_signed_catalog_alone(team: Team) -> None:
    team.build("tool", b"hello")
    team.publish("tool")
    before = team.digest("catalog", "stable")
    team.build("tool", b"changed")
    del team.publisher.environment["BANGER_SIGNING_KEY"]
    refused = team.publisher.refusal("image", "publish", "tool", "--to", team.place)
    assert refused["reason"] == Reason.UNTRUSTED
    assert "BANGER_SIGNING_KEY" in refused["hint"]
    assert team.digest("catalog", "stable") == before
    team.publisher.banger("image", "publish", "tool", "--to", f"{team.place}:testing")
    assert "nothing was signed" in team.publisher.said


def test_somebody_with_another_key_changes_nothing_and_uploads_nothing(team: Team) -> None:
    team.build("tool", b"hello")
    team.publish("tool")
    before = sorted(path for path in team.data.rglob("*"))
    team.make_keys("other")
    stranger = team.make_user("stranger")
    stranger.environment |= {"BANGER_SIGNING_KEY": str(team.folder / "other.key"), "COSIGN_PASSWORD": PASSWORD}
    team.build("mine", b"mine", stranger)
    refused = stranger.refusal("image", "publish", "mine", "--to", team.place)
    assert refused["reason"] == Reason.UNTRUSTED
    assert sorted(path for path in team.data.rglob("*")) == before


def _publish_with(team: Team, name: str, meanwhile: list[str]) -> Published:
    """Publish while, each time the catalog has been read and is about to be put, another image comes in between."""
    user = team.publisher
    targets = targets_of(user)
    named = user.paths.images.get(name)
    packed = pack(targets.store, Kind.IMAGE, targets.plan_image(name), named, None, targets.reporter)
    catalogs = make_catalogs(user.paths, load_settings(user.paths, user.environment), targets.store)

    def now() -> float:
        if meanwhile:
            team.publish(meanwhile.pop())
        return 0.0

    key = load_signing_key(user.environment)
    return publish(targets.store, packed, parse_place(team.place), catalogs, key, targets.reporter, now)


def test_a_change_that_comes_in_between_is_kept(team: Team) -> None:
    for name in ("a", "b", "c"):
        team.build(name, name.encode())
    team.publish("a")
    assert _publish_with(team, "b", ["c"]).serial == 3
    assert [each["name"] for each in team.read_catalog()["images"]] == ["a", "b", "c"]


def test_somebody_who_keeps_changing_the_catalog_is_given_way_to(team: Team) -> None:
    names = [f"n{number}" for number in range(5)]
    for name in ("mine", *names):
        team.build(name, name.encode())
    with pytest.raises(BangerError) as refused:
        _publish_with(team, "mine", names)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert len(team.read_catalog()["images"]) == 5


def test_two_that_publish_at_once_are_both_in_the_catalog(team: Team) -> None:
    for name in ("a", "b"):
        team.build(name, name.encode())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(team.publish, ("a", "b")))
    assert {each["name"] for each in team.read_catalog()["images"]} == {"a", "b"}


def test_a_catalog_that_was_lost_goes_on_where_its_readers_were(team: Team) -> None:
    team.build("tool", b"hello")
    team.publish("tool")
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    team.tag("catalog", "stable").unlink()
    assert team.publish("tool")["serial"] == 2
    reader.banger("image", "pull", "tool")


def test_doit_publishes_images_and_kernels_and_says_how_much(team: Team) -> None:
    team.build("tool", b"hello")
    register_kernel(team.publisher, "debian-6.12")
    words = [str(BIN / "doit"), "publish:tool", "publish:kernel/debian-6.12", f"to={team.place}"]
    done = team.publisher.run(*words)
    assert done.returncode == 0, done.stderr.decode()
    assert b"is now at serial 2" in done.stdout
    again = team.publisher.run(*words)
    assert again.stdout.count(b": 0 blobs uploaded; ") == 2
    team.publisher.environment["BANGER_PUBLISH_TO"] = team.place
    by_environment = team.publisher.run(str(BIN / "doit"), "publish:tool")
    assert b"is unchanged, at serial 2" in by_environment.stdout
    assert len(team.read_catalog()["images"]) == len(team.read_catalog()["kernels"]) == 1


def test_doit_without_a_place_says_what_is_missing(team: Team) -> None:
    team.build("tool", b"hello")
    done = team.publisher.run(str(BIN / "doit"), "publish:tool")
    assert done.returncode != 0
    assert b"to=registry.example.com/team" in done.stdout + done.stderr
    assert b"Traceback" not in done.stdout + done.stderr


def test_what_was_pulled_and_published_elsewhere_is_the_same_artifact(team: Team) -> None:
    team.build("tool", b"hello")
    first = team.publish("tool")
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    done = reader.banger("image", "publish", "tool", "--to", f"{team.registry.host}/mirror", "--json")
    assert json.loads(done)["reference"].partition("@")[2] == first["reference"].partition("@")[2]


def test_an_image_that_goes_by_a_reference_needs_a_name_first(team: Team) -> None:
    refused = team.publisher.refusal("image", "publish", "debian:12", "--to", team.place)
    assert refused["reason"] == Reason.BAD_INPUT
    assert "--name" in refused["hint"]


def test_what_nobody_could_pull_is_not_published(team: Team) -> None:
    team.build("tool", b"hello")
    manifest = team.publisher.paths.images.folder / "tool/manifest.json"
    manifest.write_text(
        manifest.read_text().replace('"kernel": "debian-6.12"', '"kernel": "debian-6.12", "distro": "a b"')
    )
    refused = team.publisher.refusal("image", "publish", "tool", "--to", team.place)
    assert refused["reason"] == Reason.CORRUPT
    assert "distro" in refused["message"]
    assert not team.data.exists() or not list(team.data.rglob("link"))


def test_what_is_not_here_is_not_published(team: Team) -> None:
    for kind in ("image", "kernel"):
        assert team.publisher.refusal(kind, "publish", "nothing", "--to", team.place)["reason"] == Reason.NOT_FOUND
    assert not team.data.exists() or not list(team.data.rglob("link"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "team",
        "registry.example.com",
        "127.0.0.1:5000",
        "registry.example.com/Team",
        "https://registry.example.com/x",
    ]
    + [
        "registry.example.com/team:",
        "registry.example.com/team:a b",
        "owner/team",
        "registry.example.com/team@sha256:1",
    ],
)
def test_what_is_no_folder_of_a_registry_is_no_place(text: str) -> None:
    with pytest.raises(BangerError) as refused:
        parse_place(text)
    assert refused.value.reason is Reason.BAD_INPUT


def test_a_place_names_the_catalog_that_users_configure() -> None:
    assert parse_place("127.0.0.1:5000/team").catalog == "127.0.0.1:5000/team/catalog:stable"
    assert parse_place("registry.example.com/a/b:testing").catalog == "registry.example.com/a/b/catalog:testing"


@pytest.mark.parametrize("text", ["", "a b", "-1", "1/2", "1\n", "ä", "x" * 129])
def test_what_no_tag_could_be_is_no_version(text: str) -> None:
    with pytest.raises(BangerError) as refused:
        parse_version(text)
    assert refused.value.reason is Reason.BAD_INPUT


def test_packing_the_same_twice_gives_the_same_bytes(team: Team, tmp_path: Path) -> None:
    team.build("tool", b"hello")
    targets = targets_of(team.publisher)
    named = team.publisher.paths.images.get("tool")
    first = pack(targets.store, Kind.IMAGE, targets.plan_image("tool"), named, None, targets.reporter)
    named.restore(Store.open(tmp_path / "fresh"))
    fresh = replace(targets, store=Store.open(tmp_path / "fresh"))
    assert pack(fresh.store, Kind.IMAGE, fresh.plan_image("tool"), named, None, fresh.reporter) == first
