import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from pipelines.oci.config import ImageConfig, parse_document, parse_image_config

FIELDS = ("Env", "WorkingDir", "User", "Entrypoint", "Cmd", "Labels", "ExposedPorts", "Volumes", "StopSignal")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def parse(**config: Any) -> ImageConfig:
    return parse_image_config(json.dumps({"config": config}).encode())


def reason_of(raw: bytes) -> Reason:
    with pytest.raises(BangerError) as caught:
        parse_image_config(raw)
    return caught.value.reason


def test_everything_an_image_says_is_read() -> None:
    config = parse_image_config(
        json.dumps(
            {
                "os": "linux",
                "architecture": "amd64",
                "created": "2024-01-01T00:00:00Z",
                "author": "somebody",
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "a" * 64]},
                "config": {
                    "Env": ["PATH=/bin", "EQUALS=a=b=c", "EMPTY="],
                    "WorkingDir": "/srv",
                    "User": "1000:users",
                    "Entrypoint": ["/entry", "--flag"],
                    "Cmd": ["run", ""],
                    "Labels": {"a.b": "c"},
                    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                    "Volumes": {"/data": {}},
                    "StopSignal": "SIGQUIT",
                },
                "history": [{"created": "x", "created_by": "RUN", "comment": "c", "empty_layer": True}, {}],
            }
        ).encode()
    )
    assert (config.os, config.architecture, config.created, config.author) == (
        "linux",
        "amd64",
        "2024-01-01T00:00:00Z",
        "somebody",
    )
    assert config.diff_ids == ("sha256:" + "a" * 64,)
    assert config.env == (("PATH", "/bin"), ("EQUALS", "a=b=c"), ("EMPTY", ""))
    assert (config.working_dir, config.user, config.stop_signal) == ("/srv", "1000:users", "SIGQUIT")
    assert (config.entrypoint, config.cmd) == (("/entry", "--flag"), ("run", ""))
    assert config.labels == {"a.b": "c"}
    assert (config.exposed_ports, config.volumes) == (("53/udp", "80/tcp"), ("/data",))
    assert [(entry.created_by, entry.empty_layer) for entry in config.history] == [("RUN", True), ("", False)]


@pytest.mark.parametrize("raw", [b"{}", b'{"config": null, "rootfs": null, "history": null}'])
def test_a_config_that_says_nothing_is_an_empty_one(raw: bytes) -> None:
    assert parse_image_config(raw) == ImageConfig()


def test_null_is_as_absent_in_every_field() -> None:
    assert parse(**dict.fromkeys(FIELDS)) == ImageConfig()


def test_environment_entries_that_no_process_could_have_are_passed_over() -> None:
    wanted = ["A=1", "no equals", "=x", "discovery.type=single-node", "2D=3", "E=\0", "F\0=x", "G=line\nline"]
    assert parse(Env=wanted).env == (
        ("A", "1"),
        ("discovery.type", "single-node"),
        ("2D", "3"),
        ("G", "line\nline"),
    )


def test_the_last_value_of_an_environment_variable_counts() -> None:
    assert parse(Env=["A=1", "B=2", "A=3"]).env == (("A", "3"), ("B", "2"))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [7, True, [["x"]], {"x": 1, "y": ["z"]}])
def test_a_field_of_a_wrong_type_is_named(name: str, value: object) -> None:
    if name in ("ExposedPorts", "Volumes") and isinstance(value, dict):
        return
    with pytest.raises(BangerError) as caught:
        parse(**{name: value})
    assert caught.value.reason is Reason.CORRUPT
    assert name in caught.value.message


def test_an_argument_with_a_nul_is_refused() -> None:
    with pytest.raises(BangerError) as caught:
        parse(Cmd=["a\0b"])
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'"text"',
        b"\xff{}",
        b"\xef\xbb\xbf{}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"author": "\\ud800"}',
    ],
    ids=lambda raw: raw[:12].decode("latin-1"),
)
def test_what_is_no_json_object_is_corrupt(raw: bytes) -> None:
    assert reason_of(raw) is Reason.CORRUPT


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_image_config(b'{"author": "\\ud83d\\ude00"}').author == "\U0001f600"


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert parse_document(b'{"a": "1", "a": "2"}', "it").text("a") == "2"


def find_config(raw: bytes) -> ImageConfig | None:
    """None for what is refused as it should be; any other failure is one of the test."""
    try:
        return parse_image_config(raw)
    except BangerError as error:
        if error.reason is not Reason.CORRUPT:
            raise
        return None


@given(st.dictionaries(st.sampled_from(FIELDS), values), st.dictionaries(st.sampled_from(("os", "history")), values))
def test_wild_configs_are_read_or_corrupt(config: dict[str, Any], image: dict[str, Any]) -> None:
    found = find_config(json.dumps({"config": config, **image}).encode())
    if found is not None:
        for text in (*found.entrypoint, *found.cmd, *found.volumes, *(value for _, value in found.env)):
            assert b"\0" not in text.encode()


@given(st.binary(max_size=200))
def test_wild_bytes_are_read_or_corrupt(raw: bytes) -> None:
    find_config(raw)
