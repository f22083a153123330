"""Names of machines: DNS labels, since each is also a host name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Container

from banger.errors import BangerError, Reason

# RFC 1123, section 2.1, lower case only.
_NAME = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")
_ADJECTIVES = """
amber bold brisk calm clear crisp deft eager early fair fleet fond fresh glad grand hale keen kind late
light lucid mellow mild neat noble plain prime proud quick quiet rapid ready sharp silent sleek smart
solid spry still stout sunny swift tidy true vivid warm wise witty young
""".split()  # noqa: SIM905 - read as words
_NOUNS = """
alder ash aspen badger bay birch bison brook cedar clover cove crane crow dale dove eagle elk elm fern
finch fir fox gale glen hare hawk hazel heron holly ibis iris jay lark linden lynx maple marten mink moss
newt oak otter owl pine quail raven reed robin rook rowan sage seal shore shrew stoat stork swan teal
thorn thrush tern vale vole willow wren yew
""".split()  # noqa: SIM905 - read as words


def parse_machine_name(text: str) -> str:
    """The name as it is; it is never changed silently. Raises `BangerError` for what is not one."""
    if _NAME.fullmatch(text) is None:
        raise BangerError(
            f"{text!r} is no name for a machine",
            reason=Reason.BAD_INPUT,
            hint="use 1 to 63 of a-z, 0-9 and -, with no hyphen at an edge",
        )
    return text


def make_up_name(taken: Container[str]) -> str:
    while True:
        name = f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}"
        # With many machines the words run out before the luck does.
        for candidate in (name, f"{name}-{secrets.randbelow(10_000)}"):
            if candidate not in taken:
                return candidate
