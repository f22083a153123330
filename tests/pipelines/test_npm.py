"""An npm package is what the registry promised, or refused."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from pipelines.npm import check_integrity


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "package.tgz"
    path.write_bytes(b"content")
    return path


def _promise(content: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def test_the_promised_content_is_taken(package: Path) -> None:
    check_integrity(package, _promise(b"content"), "tool")


@pytest.mark.parametrize(
    "promise",
    [
        _promise(b"other"),
        _promise(b"content").rstrip("="),
        _promise(b"content").swapcase(),
        "sha1-" + base64.b64encode(hashlib.sha1(b"content").digest()).decode(),
        "sha512-",
        "",
    ],
)
def test_everything_else_is_refused(package: Path, promise: str) -> None:
    with pytest.raises(BangerError) as caught:
        check_integrity(package, promise, "tool")
    assert caught.value.reason is Reason.CORRUPT
