"""The image config: what a container of the image would run, as whom, with which environment (image-spec, config.md).

Read leniently, as others write it: what is absent or null is empty, what is unknown is passed over. What is there has
the type that the spec gives it, or the config is refused as CORRUPT with the field named. `Document` is how every JSON
document of an image is read. Nothing is said here about whether a user exists or a program can run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from banger.errors import BangerError, Reason
from banger.run import printable

_SHOWN_CHARACTERS = 100


@dataclass(frozen=True)
class HistoryEntry:
    """How one layer came to be; an `empty_layer` has none among the layers."""

    created: str
    created_by: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True)
class ImageConfig:
    """`user` is as the image says it (`name`, `uid`, `user:group`). A name comes once in `env`, with its last value."""

    os: str = ""
    architecture: str = ""
    diff_ids: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    created: str = ""
    author: str = ""
    history: tuple[HistoryEntry, ...] = ()


@dataclass(frozen=True)
class Document:
    """A JSON object from outside, and what to call it in messages. For every getter null is absent, absent is empty."""

    what: str
    fields: Mapping[str, object]

    def text(self, name: str) -> str:
        value = self.fields.get(name)
        return "" if value is None else self._text(name, value)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(self._text(name, value) for value in self.items(name))

    def flag(self, name: str) -> bool:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name)
        return bool(value)

    def items(self, name: str) -> list[object]:
        value = self.fields.get(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name)
        return value or []

    def document(self, name: str) -> Document:
        return Document(f"{self.what}, {name}", self._mapping(name, self.fields.get(name)))

    def documents(self, name: str) -> list[Document]:
        return [Document(f"{self.what}, {name}", self._mapping(name, value)) for value in self.items(name)]

    def names(self, name: str) -> tuple[str, ...]:
        """The keys of a field that is a set: an object of empty objects, since Go has no sets."""
        return tuple(sorted(self._text(name, key) for key in self._mapping(name, self.fields.get(name))))

    def labels(self, name: str) -> dict[str, str]:
        """A field that maps text to text."""
        value = self._mapping(name, self.fields.get(name))
        return {self._text(name, key): self._text(name, inner) for key, inner in value.items() if inner is not None}

    def refuse(self, name: str) -> NoReturn:
        raise BangerError(f"{self.what}: the field {name!r} is not what it should be", reason=Reason.CORRUPT)

    def _mapping(self, name: str, value: object) -> dict[str, object]:
        if value is not None and not isinstance(value, dict):
            self.refuse(name)
        return value or {}

    def _text(self, name: str, value: object) -> str:
        # No argument, path or name that anybody could use has a NUL.
        if not isinstance(value, str) or "\0" in value:
            self.refuse(name)
        return value


def parse_image_config(raw: bytes) -> ImageConfig:
    """The config of an image from its JSON; CORRUPT when it is none."""
    image = parse_document(raw, "the image config")
    config = image.document("config")
    return ImageConfig(
        os=image.text("os"),
        architecture=image.text("architecture"),
        diff_ids=image.document("rootfs").texts("diff_ids"),
        env=_parse_env(config),
        working_dir=config.text("WorkingDir"),
        user=config.text("User"),
        entrypoint=config.texts("Entrypoint"),
        cmd=config.texts("Cmd"),
        labels=config.labels("Labels"),
        exposed_ports=config.names("ExposedPorts"),
        volumes=config.names("Volumes"),
        stop_signal=config.text("StopSignal"),
        created=image.text("created"),
        author=image.text("author"),
        history=tuple(
            HistoryEntry(
                created=entry.text("created"),
                created_by=entry.text("created_by"),
                comment=entry.text("comment"),
                empty_layer=entry.flag("empty_layer"),
            )
            for entry in image.documents("history")
        ),
    )


def parse_json(raw: bytes, what: str) -> object:
    """Any JSON value (RFC 8259) from outside; CORRUPT for all else, and for what could not be written down again."""
    try:
        value: object = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
        if b"\\ud" in raw.lower():
            # Half of a surrogate pair is text that no file name, terminal or record could hold.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        why = "it is nested too deep" if isinstance(error, RecursionError) else shown(error)
        raise BangerError(f"{what} is no valid JSON: {why}", reason=Reason.CORRUPT) from error
    return value


def parse_document(raw: bytes, what: str) -> Document:
    value = parse_json(raw, what)
    if not isinstance(value, dict):
        raise BangerError(f"{what} is no JSON object", reason=Reason.CORRUPT)
    return Document(what, value)


def shown(text: object) -> str:
    """Text from outside as a message may hold it: short, and without control characters."""
    whole = str(text)
    return printable(whole[:_SHOWN_CHARACTERS]) + ("…" if len(whole) > _SHOWN_CHARACTERS else "")


def _parse_env(config: Document) -> tuple[tuple[str, str], ...]:
    """`NAME=value` as the image says it, also of names that no shell could assign to (`discovery.type`).

    What no process could be given is passed over, as runtimes do.
    """
    env: dict[str, str] = {}
    for entry in config.items("Env"):
        if not isinstance(entry, str):
            config.refuse("Env")
        name, equals, value = entry.partition("=")
        if equals and name and "\0" not in entry:
            env[name] = value
    return tuple(env.items())


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
