"""Publishing to a real registry: what `oras` and `cosign` see there, what is sent again, who may change a catalog."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import threading
from collections.abc import Callable
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
from pipelines.publish import Published, parse_place, publish
from pipelines.reporter import Reporter, Silent
from tests.oci.team import PASSWORD, Team, register_kernel, targets_of, wait_past
from tests.oci.trouble import Trouble, trouble_before
from tests.oci.user import BIN, User

_TAGGED = "6.12.57_deb13-cloud-amd64"


def _cosign(team: Team, *words: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD, "HOME": str(team.folder)}
    return subprocess.run(["cosign", *words], cwd=team.folder, env=environment, capture_output=True)


def _verify(team: Team, reference: str, key: str = "team.pub") -> int:
    options = ["--insecure-ignore-tlog", "--allow-http-registry", "--key", key]
    return _cosign(team, "verify", *options, reference).returncode


def test_oras_shows_a_bundle_and_pulls_its_files(team: Team, tmp_path: Path) -> None:
    team.build("tool", b"hello")
    published = team.publish("tool", "--version", "1.2+3")
    tag = f"1.2_3-{published['reference'].partition('@sha256:')[2][:12]}"
    manifest = team.manifest(f"images/tool:{tag}")
    assert manifest["artifactType"] == "application/vnd.banger.image.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.banger.image.config.v1+json"
    assert published["reference"] == f"{team.place}/images/tool@{team.digest('images/tool', tag)}"
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
    manifest = team.manifest(f"kernels/debian-6.12:{team.find_tag('kernels/debian-6.12', _TAGGED)}")
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
    assert first["is_new"]
    before = sorted(path for path in team.data.rglob("*"))
    again = team.publish("tool")
    assert (again["uploaded_blobs"], again["uploaded_bytes"], again["is_new"]) == (0, 0, False)
    assert again["serial"] == first["serial"]
    assert sorted(path for path in team.data.rglob("*")) == before


def test_a_catalog_is_changed_where_the_registry_tells_no_digests(team: Team) -> None:
    team.build("tool", b"hello")
    with trouble_before(team.registry.host, Trouble(headers={"Docker-Content-Digest": None})) as team.registry:
        first = team.publish("tool")
        team.build("tool", b"changed")
        assert team.publish("tool")["serial"] > first["serial"]
        assert (team.publish("tool")["uploaded_blobs"], team.publish("tool")["is_new"]) == (0, False)


def _make_job(team: Team) -> User:
    """Somebody with the team's key whose home is new, as in CI."""
    job = team.make_user("job")
    job.environment |= {name: team.publisher.environment[name] for name in ("BANGER_SIGNING_KEY", "COSIGN_PASSWORD")}
    return job


def test_a_fresh_job_that_builds_the_same_uploads_nothing(team: Team) -> None:
    team.build("tool", b"hello")
    first = team.publish("tool")
    job = _make_job(team)
    team.build("tool", b"hello", job)
    again = team.publish("tool", user=job)
    assert (again["uploaded_blobs"], again["serial"], again["is_new"]) == (0, first["serial"], False)


def test_what_changed_is_all_that_is_sent_and_other_entries_stay(team: Team) -> None:
    for name in ("tool", "other"):
        team.build(name, name.encode())
        team.publish(name)
    before = team.read_catalog()
    team.build("tool", b"changed")
    published = team.publish("tool", "--version", "2")
    after = team.read_catalog()
    assert before["serial"] < after["serial"] == published["serial"]
    old, new = ({each["name"]: each for each in document["images"]} for document in (before, after))
    assert new["other"] == old["other"]
    assert new["tool"]["digest"] != old["tool"]["digest"]
    assert (new["tool"]["version"], new["tool"]["serial"]) == ("2", after["serial"])
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
    published = first = team.publish("tool")
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
    assert team.publish("tool")["serial"] > first["serial"]


def test_a_key_may_come_as_text_in_the_environment_or_as_a_file_by_an_option(team: Team) -> None:
    team.build("tool", b"hello")
    team.publisher.environment["BANGER_SIGNING_KEY"] = team.private_key.read_text()
    published = team.publish("tool")
    del team.publisher.environment["BANGER_SIGNING_KEY"]
    team.build("tool", b"changed")
    assert team.publish("tool", "--key", str(team.private_key))["serial"] > published["serial"]
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


def _publish_at(team: Team, name: str, now: Callable[[], float], reporter: Reporter | None = None) -> Published:
    """Publish by a clock, which is looked at when the catalog has been read and is about to be put."""
    user = team.publisher
    targets = targets_of(user)
    named = user.paths.images.get(name)
    packed = pack(targets.store, Kind.IMAGE, targets.plan_image(name), named, None, targets.reporter)
    catalogs = make_catalogs(user.paths, load_settings(user.paths, user.environment), targets.store)
    key = load_signing_key(user.environment)
    return publish(targets.store, packed, parse_place(team.place), catalogs, key, reporter or targets.reporter, now)


def _publish_with(team: Team, name: str, meanwhile: list[str]) -> Published:
    """Publish while, each time, another home puts an image in between."""
    job = _make_job(team)
    for each in meanwhile:
        team.build(each, each.encode(), job)

    def now() -> float:
        if meanwhile:
            team.publish(meanwhile.pop(), user=job)
        return 0.0

    return _publish_at(team, name, now)


def test_a_change_that_comes_in_between_is_kept(team: Team) -> None:
    for name in ("a", "b"):
        team.build(name, name.encode())
    team.publish("a")
    published = _publish_with(team, "b", ["c"])
    assert published.serial == max(each["serial"] for each in team.read_catalog()["images"])
    assert [each["name"] for each in team.read_catalog()["images"]] == ["a", "b", "c"]


def test_somebody_who_keeps_changing_the_catalog_is_given_way_to(team: Team) -> None:
    names = [f"n{number}" for number in range(5)]
    team.build("mine", b"mine")
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


class _Waits(Silent):
    """Tells when somebody else has to be waited for."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.waited = False

    def waiting(self, step: str, on_what: str) -> None:
        self.waited = True
        self.is_over.set()


def test_in_one_home_the_second_who_publishes_waits_until_the_first_has_put_the_catalog(team: Team) -> None:
    for name in ("a", "b"):
        team.build(name, name.encode())
    second = _Waits()

    def publish_second() -> Published:
        try:
            return _publish_at(team, "b", lambda: 5.0, second)
        finally:
            second.is_over.set()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        started: list[concurrent.futures.Future[Published]] = []

        def now() -> float:
            if not started:
                started.append(pool.submit(publish_second))
                second.is_over.wait()
            return 5.0

        first = _publish_at(team, "a", now)
        assert second.waited
        # In the same second, and yet another number.
        assert (first.serial, started[0].result().serial) == (5, 6)
    assert [(each["name"], each["serial"]) for each in team.read_catalog()["images"]] == [("a", 5), ("b", 6)]


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_catalog_that_was_lost_goes_on_where_its_readers_were(team: Team, is_fresh: bool) -> None:
    """Also when who publishes remembers nothing of it, as in CI."""
    team.build("tool", b"hello")
    before = team.publish("tool")["serial"]
    reader = team.make_reader("reader")
    reader.banger("image", "pull", "tool")
    team.tag("catalog", "stable").unlink()
    user = _make_job(team) if is_fresh else team.publisher
    team.build("tool", b"changed", user)
    wait_past(before)
    assert team.publish("tool", user=user)["serial"] > before
    reader.banger("image", "pull", "tool")


def test_the_tag_of_a_bundle_stays_with_it_when_the_next_has_the_same_version(team: Team) -> None:
    digests = []
    for content in (b"first", b"second"):
        register_kernel(team.publisher, "debian-6.12", content)
        digests.append(team.publish("debian-6.12", kind="kernel")["reference"].partition("@")[2])
    tags = [f"{_TAGGED}-{digest.partition(':')[2][:12]}" for digest in digests]
    assert [team.digest("kernels/debian-6.12", tag) for tag in tags] == digests


def test_doit_publishes_images_and_kernels_and_says_how_much(team: Team) -> None:
    team.build("tool", b"hello")
    register_kernel(team.publisher, "debian-6.12")
    words = [str(BIN / "doit"), "publish:tool", "publish:kernel/debian-6.12", f"to={team.place}"]
    done = team.publisher.run(*words)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"is now at serial ") == 2
    serial = team.read_catalog()["serial"]
    again = team.publisher.run(*words)
    assert again.stdout.count(b": 0 blobs uploaded; ") == 2
    team.publisher.environment["BANGER_PUBLISH_TO"] = team.place
    by_environment = team.publisher.run(str(BIN / "doit"), "publish:tool")
    assert f"is unchanged, at serial {serial}" in by_environment.stdout.decode()
    assert len(team.read_catalog()["images"]) == len(team.read_catalog()["kernels"]) == 1


def test_doit_publishes_what_led_there_to_the_remote_cache_too(team: Team) -> None:
    team.build("tool", b"hello")
    cache = team.place.partition("/")[0] + "/team/cache"
    team.publisher.environment["BANGER_CACHE_REMOTE"] = cache
    words = [str(BIN / "doit"), "publish:tool", f"to={team.place}"]
    done = team.publisher.run(*words)
    assert done.returncode == 0, done.stderr.decode()
    [pushed] = [line for line in done.stdout.decode().splitlines() if line.startswith(f"{cache}: ")]
    steps = pushed.split()[1]
    assert int(steps) > 0
    assert f"{steps} of {steps} steps sent" in pushed
    assert f"{cache}: 0 of {steps} steps sent" in team.publisher.run(*words).stdout.decode()


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


def test_packing_the_same_twice_gives_the_same_bytes(team: Team, tmp_path: Path) -> None:
    team.build("tool", b"hello")
    targets = targets_of(team.publisher)
    named = team.publisher.paths.images.get("tool")
    first = pack(targets.store, Kind.IMAGE, targets.plan_image("tool"), named, None, targets.reporter)
    named.restore(Store.open(tmp_path / "fresh"))
    fresh = replace(targets, store=Store.open(tmp_path / "fresh"))
    assert pack(fresh.store, Kind.IMAGE, fresh.plan_image("tool"), named, None, fresh.reporter) == first
