"""A team: one who publishes images and kernels to a registry of their own, and others who have its catalog."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from banger.errors import BangerError, Reason
from banger.settings import load_settings
from banger.targets import make_targets
from cache import Record, Store, key_of
from pipelines.oci.artifact import describe_blob, format_artifact
from pipelines.oci.push import open_pusher
from pipelines.oci.signatures import load_signing_key, push_signature
from pipelines.reporter import Silent
from pipelines.targets import Targets
from tests.oci.layers import file, layer, write_layout
from tests.oci.registries import Registry
from tests.oci.user import User

PASSWORD = "a password"
# A name that could also be built here.
RECIPE = "debian-bookworm"


class Notes(Silent):
    """Remembers the lines that a user should read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@dataclass
class Team:
    """`data` is where the registry keeps its files; `publisher` has the key whose public half is `public_key`.

    What is in `folder` already is used as it is.
    """

    registry: Registry
    folder: Path
    publisher: User = field(init=False)

    def __post_init__(self) -> None:
        self.publisher = self.make_user("publisher")
        if not self.private_key.exists():
            self.make_keys("team")
        self.publisher.environment |= {"BANGER_SIGNING_KEY": str(self.private_key), "COSIGN_PASSWORD": PASSWORD}

    @property
    def place(self) -> str:
        return f"{self.registry.host}/team"

    @property
    def catalog(self) -> str:
        return f"{self.place}/catalog:stable"

    @property
    def data(self) -> Path:
        return self.folder / "registry/data/docker/registry/v2"

    @property
    def private_key(self) -> Path:
        return self.folder / "team.key"

    @property
    def public_key(self) -> Path:
        return self.folder / "team.pub"

    def make_user(self, name: str) -> User:
        return User(self.folder / f"home-{name}")

    def make_keys(self, name: str) -> None:
        make_keys(self.folder, name)

    def build(self, name: str, content: bytes, user: User | None = None) -> None:
        """A small image; of equal content, equal bytes."""
        tar = layer(file("root/hello", content), file("usr/share/more", b"more" * 50_000))
        layout = self.folder / f"layout-{hashlib.sha256(content).hexdigest()[:8]}"
        if not layout.exists():
            write_layout(layout, {"it": [tar]})
        (user or self.publisher).banger("image", "build", f"oci:{layout}:it", "--name", name)

    def publish(self, name: str, *more: str, kind: str = "image", user: User | None = None) -> dict[str, Any]:
        text = (user or self.publisher).banger(kind, "publish", name, "--to", self.place, "--json", *more)
        found: dict[str, Any] = json.loads(text)
        return found

    def make_reader(self, name: str, key: Path | None = None, catalogs: tuple[str, ...] = ()) -> User:
        """Somebody who has the catalog, and the team's key or another one."""
        reader = self.make_user(name)
        self.configure(reader, *(catalogs or (self.catalog,)), key=key or self.public_key)
        return reader

    def configure(self, user: User, *catalogs: str, key: Path | None) -> None:
        folder = user.paths.config
        folder.mkdir(parents=True, exist_ok=True)
        wanted = "" if key is None else f'key = "{key}"\n'
        (folder / "config.toml").write_text("".join(f'[[catalog]]\nref = "{each}"\n{wanted}\n' for each in catalogs))

    # The registry as somebody who can write to its disk sees it

    def blob(self, digest: str) -> Path:
        algorithm, _, hexadecimal = digest.partition(":")
        return self.data / "blobs" / algorithm / hexadecimal[:2] / hexadecimal / "data"

    def tag(self, repository: str, tag: str) -> Path:
        """The file that says which manifest a tag is."""
        return self.data / "repositories/team" / repository / "_manifests/tags" / tag / "current/link"

    def manifest(self, reference: str) -> dict[str, Any]:
        words = ["oras", "manifest", "fetch", "--plain-http", f"{self.place}/{reference}"]
        found: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
        return found

    def digest(self, repository: str, tag: str) -> str:
        return self.tag(repository, tag).read_text()

    def find_tag(self, repository: str, version: str) -> str:
        """The one tag of a bundle of that version: its name ends with some of its digest."""
        tags = self.tag(repository, version).parents[2]
        [found] = [each.name for each in tags.iterdir() if each.name.rpartition("-")[0] == version]
        return found

    def read_catalog(self) -> dict[str, Any]:
        [layer] = self.manifest("catalog:stable")["layers"]
        found: dict[str, Any] = json.loads(self.blob(layer["digest"]).read_bytes())
        return found

    def put_catalog(self, document: dict[str, Any]) -> str:
        """What anybody who may push can put there; gives its digest."""
        content = json.dumps(document).encode()
        layer = describe_blob(content, "application/vnd.banger.catalog.v1+json", "catalog.json")
        empty = describe_blob(b"{}", "application/vnd.oci.empty.v1+json")
        manifest = format_artifact("application/vnd.banger.catalog.v1", empty, [layer])
        self.put("catalog:stable", manifest, {layer.digest: content, empty.digest: b"{}"})
        return describe_blob(manifest, "").digest

    def sign(self, repository: str, digest: str) -> None:
        key = load_signing_key(self.publisher.environment)
        assert key is not None
        with open_pusher(f"{self.place}/{repository}:x", {}) as pusher:
            push_signature(pusher, f"{self.place}/{repository}", digest, key)

    def put(self, reference: str, manifest: bytes, blobs: Mapping[str, bytes]) -> None:
        """Push a manifest, whatever it says, with its blobs by digest."""
        with open_pusher(f"{self.place}/{reference}", {}) as pusher:
            for digest, content in blobs.items():
                pusher.push_blob(digest, len(content), lambda content=content: io.BytesIO(content))  # type: ignore[misc]
            media_type = "application/vnd.oci.image.manifest.v1+json"
            pusher.push_manifest(manifest, media_type, f"{self.place}/{reference}")


def wait_past(serial: int) -> None:
    """Until who knows no catalog gives a higher one: theirs is the time in seconds (`Catalog.replace`)."""
    while time.time() < serial + 1:
        time.sleep(0.02)


def make_keys(folder: Path, name: str) -> None:
    words = ["cosign", "generate-key-pair", "--output-key-prefix", name]
    environment = {**os.environ, "COSIGN_PASSWORD": PASSWORD}
    subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)


def register_kernel(user: User, name: str, content: bytes = b"") -> None:
    """A kernel that is none: three files under a name."""
    store = Store.open(user.paths.store)
    version = b"Linux version 6.12.57+deb13-cloud-amd64 (builder) #1\0"
    files = {
        "vmlinux": store.put_bytes(b"\x7fELF" + version + content),
        "modules": store.put_bytes(b"modules" + content),
        "initramfs": store.put_bytes(b"initramfs" + content),
    }
    records = {
        key_of(role, 0, {"test": name}, {}): Record(role, 0, {"test": name}, {}, {role: made}, time.time(), 0.0)
        for role, made in files.items()
    }
    user.paths.kernels.put(name, store, files, records, {"source": "trixie/test", "runtime": "0123456789ab"})


def targets_of(user: User, notes: Notes | None = None, **more: Any) -> Targets:
    """What the user's commands work with."""
    store = Store.open(user.paths.store)
    settings = load_settings(user.paths, user.environment)
    return make_targets(user.paths, settings, store, notes or Notes(), **more)


def is_empty(user: User) -> bool:
    """Nothing has a name, and nothing half-made is left."""
    names = [*user.paths.images.list(), *user.paths.kernels.list()]
    return not names and not list((user.paths.store / "tmp").iterdir())


def assert_refused(reader: User, *reasons: Reason, kind: str = "image", name: str = RECIPE) -> dict[str, str]:
    """Pulling is refused, so is a machine on its way, and neither leaves a trace."""
    refused = reader.refusal(kind, "pull", name)
    assert refused["reason"] in reasons, refused
    assert is_empty(reader)
    notes = Notes()
    targets = targets_of(reader, notes)
    with pytest.raises(BangerError) as also:
        targets.plan_image(name) if kind == "image" else targets.plan_kernel(name)
    assert also.value.reason in reasons
    assert notes.lines == []
    assert is_empty(reader)
    return refused
