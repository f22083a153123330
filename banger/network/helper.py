"""The program that runs as root, through `sudo`, for an ordinary user: one change, then it ends.

    python -I -m banger.network.helper attach BRIDGE NETWORK ADDRESS nat|no-nat UID
    python -I -m banger.network.helper detach BRIDGE NETWORK ADDRESS
    python -I -m banger.network.helper route-dns BRIDGE NETWORK ADDRESS:PORT
    python -I -m banger.network.helper unroute-dns BRIDGE NETWORK

It is written to be the only thing that a sudoers rule must allow, so it trusts nothing: exactly these words, the
bridge and the network of `DEFAULT_SUBNET` (any other would move routes, or names, of the whole host), a guest's
address in it, and the user who ran sudo as the owner, also when that is root. Of the host's names it leads `.vm`
and the network's own to a server on loopback, and no other. It reads no setting, no standard input and, but for who
ran sudo, no variable: programs are looked for in the system's folders alone. Not promised: protection from whoever may
write its interpreter or its source. A rule without a password is for an installation whose files belong to root.

The first line of its output is `STARTED`, so that silence means that sudo, not this program, refused. A refusal is
one more line, a JSON object {message, hint, reason}, and status 1.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence

from banger.errors import BangerError, Reason
from banger.network import resolved
from banger.network.attachment import attach, detach
from banger.network.names import parse_local_server
from banger.network.privileges import STARTED
from banger.network.subnet import DEFAULT_SUBNET, Subnet, parse_address

_UID = re.compile(r"0|[1-9][0-9]{0,9}")
# Where a system has its programs, and only root writes.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    print(STARTED, flush=True)
    # A Ctrl-C reaches us too, on the same terminal. A change once begun is finished: the caller can undo it.
    # After a Ctrl-Z we would hold the network's lock while we wait, and stop everybody.
    for number in (signal.SIGINT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    try:
        _perform(argv, get_caller_uid(environ))
    except BangerError as error:
        print(json.dumps({"message": error.message, "hint": error.hint, "reason": error.reason}), flush=True)
        return 1
    return 0


def leave_environment() -> dict[str, str]:
    """From here on nothing is as the caller says; what was said is given back.

    Without `secure_path`, sudo hands on the caller's PATH, and with it the choice of what runs as root.
    """
    left = dict(os.environ)
    os.environ.clear()
    os.environ["PATH"] = _PATH
    return left


def get_caller_uid(environ: Mapping[str, str]) -> int:
    """The user who ran sudo, which sudo itself tells and the user cannot set; without sudo, who runs this."""
    text = environ.get("SUDO_UID")
    return os.getuid() if text is None else parse_uid(text)


def parse_uid(text: str) -> int:
    # 2**32 - 1 means "no user" to the kernel.
    if not _UID.fullmatch(text) or int(text) >= 2**32 - 1:
        raise BangerError(f"{text!r} is not a user's number", reason=Reason.BAD_INPUT)
    return int(text)


def get_subnet(bridge: str, network: str) -> Subnet:
    """banger's own, when that is what the words say. Raises `BangerError` (bad-input) for any other."""
    subnet = DEFAULT_SUBNET
    if (bridge, network) != (subnet.bridge, str(subnet.network)):
        raise BangerError(
            f"{bridge!r} with {network!r} is not banger's network",
            reason=Reason.BAD_INPUT,
            hint=f"the network helper changes {subnet.bridge} with {subnet.network}, and no other",
        )
    return subnet


def _perform(argv: Sequence[str], caller_uid: int) -> None:
    match argv:
        case ["attach", bridge, network, address, ("nat" | "no-nat") as nat, uid]:
            owner_uid = parse_uid(uid)
            if owner_uid != caller_uid:
                raise BangerError(
                    f"user {caller_uid} cannot attach a machine for user {owner_uid}", reason=Reason.NO_PERMISSION
                )
            attach(get_subnet(bridge, network), parse_address(address), nat=nat == "nat", owner_uid=owner_uid)
        case ["detach", bridge, network, address]:
            detach(get_subnet(bridge, network), parse_address(address), owner_uid=caller_uid)
        case ["route-dns", bridge, network, server]:
            subnet = get_subnet(bridge, network)
            resolved.set_route(subnet, resolved.plan_route(subnet, parse_local_server(server)))
        case ["unroute-dns", bridge, network]:
            resolved.remove_route(get_subnet(bridge, network))
        case _:
            raise BangerError(
                "the network helper does not understand its arguments",
                reason=Reason.BAD_INPUT,
                hint="it is called by banger only",
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], leave_environment()))
