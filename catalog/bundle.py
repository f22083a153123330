"""What is published of an image or a kernel besides its files: the bundle's own document (docs/image-catalog.md).

It is the config blob of an OCI artifact whose layers are the files, compressed; each file is named here by the BLAKE3
and the size that it has to unpack to. Equal content is equal bytes, whenever and wherever it was built: no clock, no
host and no path is in it. Pure: nothing is read or asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cache import Digest, Object, Record, format_record, key_of, parse_record
from cache.digests import is_digest
from catalog.fields import Fields, format_document, parse_fields

_FORMAT = 1
# The role of the bundle's document among the files of what was pulled.
DOCUMENT = "bundle"
ARCHITECTURE = "amd64"
_MAX_RECORDS = 1000
_MAX_SOURCES = 20


class Kind(StrEnum):
    IMAGE = "image"
    KERNEL = "kernel"

    @property
    def noun(self) -> str:
        return "an image" if self is Kind.IMAGE else "a kernel"

    @property
    def artifact_type(self) -> str:
        return f"application/vnd.banger.{self}.v1"

    @property
    def config_type(self) -> str:
        return f"application/vnd.banger.{self}.config.v1+json"


@dataclass(frozen=True)
class Role:
    """How a file travels: its media type, and what `oras pull` calls it."""

    media_type: str
    title: str
    is_required: bool = True


# In the order of the artifact's layers.
ROLES: Mapping[Kind, Mapping[str, Role]] = {
    Kind.IMAGE: {
        "rootfs": Role("application/vnd.banger.image.rootfs.v1.erofs+zstd", "rootfs.erofs.zst"),
        "home": Role("application/vnd.banger.image.home.v1.tar+zstd", "home.tar.zst"),
        "config": Role("application/vnd.banger.image.oci-config.v1.json+zstd", "oci-config.json.zst", False),
    },
    Kind.KERNEL: {
        "vmlinux": Role("application/vnd.banger.kernel.vmlinux.v1.elf+zstd", "vmlinux.zst"),
        "modules": Role("application/vnd.banger.kernel.modules.v1.erofs+zstd", "modules.erofs.zst"),
        "initramfs": Role("application/vnd.banger.kernel.initramfs.v1+zstd", "initramfs.img.zst"),
    },
}


@dataclass(frozen=True)
class Bundle:
    """`files` are the objects by role, unpacked. `provenance` holds the records of the steps that made them, by key.

    `kernel` (of images) is the name of what its machines boot, `runtime` (of kernels) the version of the guest's side
    of banger in it. `source` says where it comes from: `kind`, and what that kind knows (`recipe`, `lock`, …).
    """

    kind: Kind
    name: str
    version: str
    files: Mapping[str, Object]
    summary: str = ""
    distro: str = ""
    kernel: str = ""
    runtime: str = ""
    architecture: str = ARCHITECTURE
    source: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[Digest, Record] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all files, unpacked."""
        return sum(made.size_bytes for made in self.files.values())


def without_times(record: Record) -> Record:
    """When something was made, and how long it took, is not what it is."""
    return replace(record, made_at=0.0, duration_s=0.0)


def format_bundle(bundle: Bundle) -> bytes:
    optional = {"distro": bundle.distro, "kernel": bundle.kernel, "runtime": bundle.runtime}
    return format_document(
        {
            "format": _FORMAT,
            "name": bundle.name,
            "version": bundle.version,
            "summary": bundle.summary,
            "architecture": bundle.architecture,
            **{name: text for name, text in optional.items() if text},
            "source": dict(bundle.source),
            "files": {
                role: {"blake3": made.digest, "size_bytes": made.size_bytes} for role, made in bundle.files.items()
            },
            "provenance": {
                key: format_record(without_times(record)).decode("utf-8", "surrogatepass")
                for key, record in bundle.provenance.items()
            },
        }
    )


def parse_bundle(raw: bytes, kind: Kind) -> Bundle:
    """The inverse of `format_bundle`. Raises what `parse_fields` raises, and CORRUPT for what contradicts itself."""
    fields = parse_fields(raw, f"the manifest of the {kind} bundle", _FORMAT)
    return Bundle(
        kind=kind,
        name=fields.name("name", kind.noun),
        version=fields.word("version"),
        summary=fields.text("summary", ""),
        architecture=fields.word("architecture"),
        distro=fields.word("distro", ""),
        kernel=fields.name("kernel", "a kernel", None if kind is Kind.IMAGE else ""),
        runtime=fields.word("runtime", ""),
        source=fields.words("source", _MAX_SOURCES),
        files=_parse_files(fields.fields("files"), kind),
        provenance=_parse_provenance(fields.fields("provenance")),
    )


def _parse_files(fields: Fields, kind: Kind) -> dict[str, Object]:
    """Of the roles that are known; what a later banger adds is not used by this one."""
    return {
        role: _parse_object(fields.fields(role))
        for role, known in ROLES[kind].items()
        if known.is_required or role in fields.values
    }


def _parse_object(fields: Fields) -> Object:
    digest = fields.word("blake3")
    if not is_digest(digest):
        fields.refuse("blake3", "no digest")
    return Object(Digest(digest), fields.number("size_bytes"))


def _parse_provenance(fields: Fields) -> dict[Digest, Record]:
    if len(fields.values) > _MAX_RECORDS:
        fields.refuse("provenance", "too long")
    records = {}
    for key, text in fields.values.items():
        try:
            record = parse_record(str(text).encode("utf-8", "surrogatepass"))
        except ValueError:
            fields.refuse(key, "no record of a step")
        if key_of(record.step, record.version, record.parameters, record.inputs) != key:
            fields.refuse(key, "not the key of its record")
        records[Digest(key)] = record
    return records
