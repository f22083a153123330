"""Keys, payloads and signatures as cosign has them; everything else is refused. The real cosign makes the keys."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from banger.errors import BangerError, Reason
from catalog.signatures import (
    PrivateKey,
    check_payload,
    make_payload,
    read_private_key,
    read_public_key,
    sign,
    verify,
)

DIGEST = "sha256:" + "a" * 64
PASSWORD = b"s\xc3\xa9same"
PUBLIC = read_public_key(
    b"-----BEGIN PUBLIC KEY-----\n"
    b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELn4dWk9bgimFnhzgCOJfGmhtvwAE\n"
    b"5Aro0JVyb0FPFZxSnGpKpWcE4hawWYwlkXTdzDalEtUrOsznPXVnnfKDUA==\n"
    b"-----END PUBLIC KEY-----\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cosign.key` and `cosign.pub` as cosign makes them; keys of other kinds as openssl does."""
    folder = tmp_path_factory.mktemp("keys")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "COSIGN_PASSWORD": PASSWORD.decode()}
    subprocess.run(["cosign", "generate-key-pair"], cwd=folder, env=environment, check=True, capture_output=True)
    for name, *words in (
        ("p256", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
        ("p384", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
        ("ed25519", "-algorithm", "ed25519"),
        ("rsa", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    ):
        subprocess.run(["openssl", "genpkey", *words, "-out", f"{name}.key"], cwd=folder, check=True)
        subprocess.run(
            ["openssl", "pkey", "-in", f"{name}.key", "-pubout", "-out", f"{name}.pub"], cwd=folder, check=True
        )
    locked = ["openssl", "pkey", "-in", "p256.key", "-aes256", "-passout", "pass:x", "-out", "locked.key"]
    subprocess.run(locked, cwd=folder, check=True)
    old = ["openssl", "ec", "-in", "p256.key", "-out", "old.key"]
    subprocess.run(old, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def key(folder: Path) -> PrivateKey:
    return read_private_key((folder / "cosign.key").read_bytes(), PASSWORD)


def refusal(pem: bytes, password: bytes = PASSWORD, *, is_public: bool = False) -> str:
    with pytest.raises(BangerError) as refused:
        _ = read_public_key(pem) if is_public else read_private_key(pem, password)
    assert refused.value.reason is Reason.BAD_INPUT
    assert refused.value.message.isprintable()
    assert refused.value.hint
    return refused.value.message


def test_a_pair_of_cosigns_is_a_pair(folder: Path, key: PrivateKey) -> None:
    public = read_public_key((folder / "cosign.pub").read_bytes())
    assert public == key.public
    assert read_public_key(public.format_pem()) == public
    assert verify(b"payload", sign(b"payload", key), public)


def test_a_key_that_is_not_encrypted_needs_no_password(folder: Path) -> None:
    key = read_private_key((folder / "p256.key").read_bytes())
    assert key.public == read_public_key((folder / "p256.pub").read_bytes())


def test_a_key_under_the_old_label_of_cosigns_is_read(folder: Path, key: PrivateKey) -> None:
    pem = (folder / "cosign.key").read_bytes().replace(b"SIGSTORE", b"COSIGN")
    assert read_private_key(pem, PASSWORD).public == key.public


def test_openssl_finds_a_signature_good(folder: Path, key: PrivateKey, tmp_path: Path) -> None:
    payload = make_payload("example.com/a", DIGEST)
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(sign(payload, key)))
    argv = ["openssl", "dgst", "-sha256", "-verify", folder / "cosign.pub", "-signature", tmp_path / "signature"]
    subprocess.run([*argv, tmp_path / "payload"], check=True, capture_output=True)


def test_a_signature_is_for_one_text_and_of_one_key(folder: Path, key: PrivateKey) -> None:
    other = read_public_key((folder / "p256.pub").read_bytes())
    signature = sign(b"payload", key)
    assert not verify(b"Payload", signature, key.public)
    assert not verify(b"payload", signature, other)
    damaged = base64.b64encode(base64.b64decode(signature)[:-1] + b"\0").decode()
    for wrong in (damaged, "", "=", "é", signature * 2, signature + "\n", "A" * 100_000):
        assert not verify(b"payload", wrong, key.public)


def test_a_wrong_password_is_said_to_be_one(folder: Path) -> None:
    pem = (folder / "cosign.key").read_bytes()
    for wrong in (b"", b"x", PASSWORD + b"\n"):
        assert "password" in refusal(pem, wrong)


@pytest.mark.parametrize("name", ["p384", "ed25519", "rsa"])
def test_a_key_of_another_kind_is_refused(folder: Path, name: str) -> None:
    assert "P-256" in refusal((folder / f"{name}.key").read_bytes())
    assert "P-256" in refusal((folder / f"{name}.pub").read_bytes(), is_public=True)


@pytest.mark.parametrize("name", ["locked.key", "old.key", "cosign.pub"])
def test_a_private_key_in_another_form_is_refused(folder: Path, name: str) -> None:
    refusal((folder / name).read_bytes())


def test_a_private_key_is_no_public_one_and_is_not_shown(folder: Path, key: PrivateKey) -> None:
    pem = (folder / "p256.key").read_bytes()
    secret = pem.splitlines()[1].decode()
    assert secret not in refusal(pem, is_public=True)
    assert secret not in repr(read_private_key(pem))
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\xff\0",
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b" " * (1 << 17),
    ],
)
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    refusal(pem, is_public=True)
    refusal(pem)
    refusal(pem.replace(b"PUBLIC", b"PRIVATE"))
    refusal(pem.replace(b"PUBLIC", b"ENCRYPTED SIGSTORE PRIVATE"))


def _change(pem: bytes, path: str, value: object) -> bytes:
    """The key with one field of its JSON replaced, or taken out."""
    lines = pem.decode().splitlines()
    document: Any = json.loads(base64.b64decode("".join(lines[1:-1])))
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return f"{lines[0]}\n{text}\n{lines[-1]}\n".encode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kdf.name", "pbkdf2"),
        ("kdf.params.N", 1 << 30),
        ("kdf.params.N", 65537),
        ("kdf.params.N", 0),
        ("kdf.params.N", True),
        ("kdf.params.N", "65536"),
        ("kdf.params.r", 1 << 20),
        ("kdf.params.p", 1 << 20),
        ("kdf.params.p", -1),
        ("kdf.params", []),
        ("kdf.salt", "é"),
        ("kdf.salt", 5),
        ("cipher.name", "aes"),
        ("cipher.nonce", "AAAA"),
        ("ciphertext", "AAAA"),
        ("ciphertext", ""),
        *((path, None) for path in ("kdf", "cipher", "ciphertext", "kdf.params.N", "cipher.nonce", "kdf.salt")),
    ],
)
def test_an_encrypted_key_that_is_not_as_cosigns_is_refused_before_it_costs_anything(
    folder: Path, path: str, value: object
) -> None:
    refusal(_change((folder / "cosign.key").read_bytes(), path, value))


def test_a_payload_is_about_one_manifest() -> None:
    payload = make_payload("example.com/team/app", DIGEST)
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": "example.com/team/app"},
            "image": {"docker-manifest-digest": DIGEST},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    check_payload(payload, DIGEST)
    with pytest.raises(BangerError) as refused:
        check_payload(payload, "sha256:" + "b" * 64)
    assert refused.value.reason is Reason.UNTRUSTED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'"x"',
        b"{}",
        b'{"critical": null}',
        b'{"critical": {"type": "cosign container image signature", "image": {}}}',
        b'{"critical": {"type": "cosign container image signature", "image": {"docker-manifest-digest": 5}}}',
        b'{"critical": {"type": "atomic container signature", "image": {"docker-manifest-digest": "%s"}}}'
        % DIGEST.encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_payload_is_refused_although_it_is_signed(payload: bytes) -> None:
    with pytest.raises(BangerError) as refused:
        check_payload(payload, DIGEST)
    assert refused.value.reason is Reason.CORRUPT


@given(st.binary(max_size=300), st.text(max_size=200))
def test_wild_signatures_are_none(payload: bytes, signature: str) -> None:
    assert not verify(payload, signature, PUBLIC)
