"""Signatures as cosign makes them with a key pair: the keys, the text that is signed, and the signing. All of it pure.

What is signed is a small JSON document that names the digest of a manifest: "simple signing" (containers/image,
docs/containers-signature.5.md), in the form of cosign's specs/SIGNATURE_SPEC.md. The signature is ECDSA over P-256 with
SHA-256, as DER in base64. A private key is PKCS #8 in PEM, or cosign's own form of it: JSON with the parameters of
scrypt (RFC 7914) and a NaCl secretbox of the key.

A signature says that the holder of the key meant this digest. It does not say under which name, nor that it is the
newest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from banger.errors import BangerError, Reason

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

MAX_KEY_BYTES = 1 << 16
MAX_PAYLOAD_BYTES = 1 << 16
# An ECDSA signature over P-256 has at most 72 bytes.
_MAX_SIGNATURE_CHARACTERS = 200
_TYPE = "cosign container image signature"
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,60})-----\s+([A-Za-z0-9+/=\s]+?)\s*-----END \1-----", re.ASCII)
_ENCRYPTED = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
# scrypt takes 128 N r bytes; cosign writes N = 65536, r = 8, p = 1.
_MAX_SCRYPT_BYTES = 1 << 28
_MAX_SCRYPT_PASSES = 16
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class PublicKey:
    """`fingerprint` tells keys apart: the SHA-256 of the key as DER."""

    fingerprint: str
    _key: EllipticCurvePublicKey = field(repr=False, compare=False)

    def format_pem(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class PrivateKey:
    public: PublicKey
    _key: EllipticCurvePrivateKey = field(repr=False, compare=False)


def read_private_key(pem: bytes, password: bytes = b"") -> PrivateKey:
    """A key of cosign's, or a PKCS #8 one that is not encrypted. BAD_INPUT for all else, and a wrong password."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    label, content = _parse_pem(pem, "private")
    if label == "ENCRYPTED PRIVATE KEY":
        raise _refuse("the private key is encrypted in a way that cosign does not know", _make_one())
    if label not in (*_ENCRYPTED, "PRIVATE KEY"):
        raise _refuse(f"{label.lower()!r} is not what a private key for signing is called", _make_one())
    try:
        key = load_der_private_key(_decrypt(content, password) if label in _ENCRYPTED else content, None)
    except (ValueError, TypeError) as error:
        raise _refuse("the private key is damaged", _make_one()) from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise _refuse("the private key is not of ECDSA over P-256", _make_one())
    return PrivateKey(_name(key.public_key()), key)


def read_public_key(pem: bytes) -> PublicKey:
    """What `cosign generate-key-pair` writes as `cosign.pub`. BAD_INPUT for all else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    label, content = _parse_pem(pem, "public")
    if label != "PUBLIC KEY":
        raise _refuse(f"{label.lower()!r} is not what a public key is called", _make_one())
    try:
        key = load_der_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refuse("the public key is damaged", _make_one()) from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise _refuse("the public key is not of ECDSA over P-256", _make_one())
    return _name(key)


def make_payload(docker_reference: str, manifest_digest: str) -> bytes:
    """What is signed: `docker_reference` is the repository without tag and digest."""
    document = {
        "critical": {
            "identity": {"docker-reference": docker_reference},
            "image": {"docker-manifest-digest": manifest_digest},
            "type": _TYPE,
        },
        "optional": None,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def sign(payload: bytes, key: PrivateKey) -> str:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return _base64(key._key.sign(payload, ECDSA(SHA256())))


def verify(payload: bytes, signature: str, key: PublicKey) -> bool:
    """Whether the key signed exactly these bytes. What is no signature at all is none of this key's."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    if len(signature) > _MAX_SIGNATURE_CHARACTERS:
        return False
    try:
        key._key.verify(base64.b64decode(signature, validate=True), payload, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def check_payload(payload: bytes, manifest_digest: str) -> None:
    """UNTRUSTED unless the payload, whose signature is good, is about this manifest; CORRUPT if it is no payload."""
    try:
        critical = json.loads(payload)["critical"]
        kind, found = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BangerError("what was signed is not in cosign's format", reason=Reason.CORRUPT) from error
    if kind != _TYPE or not isinstance(found, str) or _DIGEST.fullmatch(found) is None:
        raise BangerError("what was signed is not in cosign's format", reason=Reason.CORRUPT)
    if found != manifest_digest:
        raise BangerError(
            f"the signature is for {found[:19]}, not for {manifest_digest[:19]}",
            reason=Reason.UNTRUSTED,
            hint="somebody put a signature where it does not belong",
        )


def _parse_pem(pem: bytes, what: str) -> tuple[str, bytes]:
    """Label and content (RFC 7468) of the first block."""
    text = pem[:MAX_KEY_BYTES].decode("ascii", "replace")
    match = _PEM.search(text)
    if match is None or len(pem) > MAX_KEY_BYTES:
        raise _refuse(f"that is no {what} key in PEM form", _make_one())
    try:
        return match[1], base64.b64decode("".join(match[2].split()), validate=True)
    except ValueError as error:
        raise _refuse(f"the {what} key is damaged", _make_one()) from error


def _decrypt(content: bytes, password: bytes) -> bytes:
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        document = json.loads(content)
        kdf, cipher = document["kdf"], document["cipher"]
        salt, nonce = _bytes(kdf["salt"]), _bytes(cipher["nonce"])
        box = _bytes(document["ciphertext"])
        n, r, p = (_number(kdf["params"], name) for name in ("N", "r", "p"))
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox") or len(nonce) != SecretBox.NONCE_SIZE:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refuse("the private key is damaged", _make_one()) from error
    if not 1 < n <= 1 << 22 or n & (n - 1) or 128 * n * r > _MAX_SCRYPT_BYTES or not 0 < p <= _MAX_SCRYPT_PASSES:
        raise _refuse("the private key asks for more memory or time than any of cosign's does", _make_one())
    try:
        return SecretBox(_derive(password, salt, n, r, p)).decrypt(box, nonce)
    except CryptoError:
        # Without the cause: it says nothing of use.
        raise _refuse(
            "the password does not open the private key", "set COSIGN_PASSWORD to the password it was made with"
        ) from None


def _derive(password: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=_MAX_SCRYPT_BYTES + (1 << 24), dklen=32)


def _name(key: EllipticCurvePublicKey) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return PublicKey(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest(), key)


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    return base64.b64decode(text, validate=True)


def _number(table: Mapping[str, object], name: str) -> int:
    value = table[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _make_one() -> str:
    return "cosign generate-key-pair makes a pair that will do"


def _refuse(message: str, hint: str) -> BangerError:
    return BangerError(message, reason=Reason.BAD_INPUT, hint=hint)
