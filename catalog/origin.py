"""What makes an image or a kernel that is here anew: for somebody whose files of it are damaged or out of date."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

# What `image build -` reads.
_STDIN = "-"


def tell_remake(what: str, name: str, details: Mapping[str, Any]) -> str:
    """A command, or what to do where no one command is enough. `details` are those of the name."""
    source = str(details.get("source", ""))
    word = quote(name)
    if source == "catalog":
        return f"banger {what} pull {word}"
    if source == "import":
        return f"import it again: banger kernel import {word} FILE"
    if source == "recipe-file":
        return f"build its recipe: banger image build --name {word} --recipe {quote(str(details.get('path')))}"
    if source == "promoted":
        return f"promote a machine again: banger image promote VM {word}"
    if source == "register":
        return f"register it again: banger image register {word} --rootfs …"
    if source == "oci" and details.get("reference") == _STDIN:
        return f"give it again: … | banger image build - --name {word}"
    if what == "kernel" or source in ("oci", "recipe"):
        return f"banger {what} build {word}"
    return f"it came from: {details.get('reference') or source or 'unknown'}"
