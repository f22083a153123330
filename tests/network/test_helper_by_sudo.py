"""What sudo lets an ordinary user do who may call the network helper and nothing else: each wrong word is refused."""

import json
import sys

from banger.network.privileges import plan_helper

GOOD = ["attach", "banger0", "172.16.0.0/24", "172.16.0.6", "no-nat", "4242"]
WRONG = [
    [word if n == place else good for n, good in enumerate(GOOD)]
    for place, word in [
        (0, "flush"),
        (0, "attach;reboot"),
        (1, "docker0"),
        (1, "lo"),
        (1, "../banger0"),
        (1, 'banger0" }; flush ruleset'),
        (1, "$(reboot)"),
        (2, "10.0.0.0/8"),
        (2, "172.16.0.0/24;reboot"),
        (3, "172.16.0.1"),
        (3, "172.16.0.255"),
        (3, "172.16.1.6"),
        (3, "192.0.2.1"),
        (3, "172.16.0.5"),
        (3, "../../172.16.0.6"),
        (3, "172.16.0.6;reboot"),
        (4, "nat;reboot"),
        (5, "0"),
        (5, "4243"),
        (5, "4242;reboot"),
    ]
] + [
    [],
    GOOD[:-1],
    [*GOOD, "--"],
    ["detach", *GOOD[1:3], "172.16.0.6;reboot"],
    ["route-dns", "eth0", "172.16.0.0/24", "127.0.0.1:42069"],
    ["route-dns", *GOOD[1:3], "192.0.2.1:53"],
    ["unroute-dns", "../banger0", "172.16.0.0/24"],
]

# Each command's status and what it printed, in one session of the user's.
_TRY = """
import json, subprocess, sys
told = []
for words in json.load(open(0)):
    done = subprocess.run(["sudo", "-n", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    told.append([done.returncode, done.stdout])
print(json.dumps(told))
"""


def list_network(host):
    owners = {name: link["linkinfo"]["info_data"].get("user") for name, link in host.links().items() if name != "lo"}
    neighbours = host.run("ip", "-4", "neigh", "show", "nud", "permanent").stdout
    return owners, host.run("nft", "list", "ruleset").stdout, neighbours


def attempt(user, *commands):
    asked = user.python(_TRY.replace("open(0)", f"__import__('io').StringIO({json.dumps(commands)!r})"))
    return json.loads(asked.stdout)


def test_every_wrong_word_is_refused_through_sudo(host, user):
    # The address of another user's machine.
    done = host.run("env", "SUDO_UID=4243", *plan_helper(), *GOOD[:3], "172.16.0.5", "no-nat", "4243")
    assert done.stdout == "banger-network-helper\n"
    before = list_network(host)
    user.sudoers = f"lab ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
    for words, (status, out) in zip(WRONG, attempt(user, *([*plan_helper(), *words] for words in WRONG)), strict=True):
        assert status == 1, words
        # Without words the rule does not even fit.
        if words:
            assert json.loads(out.splitlines()[1])["reason"] in ("bad-input", "no-permission"), words
    # Taking down what is another's changes nothing either.
    attempt(user, [*plan_helper(), "detach", *GOOD[1:3], "172.16.0.5"])
    assert list_network(host) == before


def test_the_rule_for_the_helper_lets_nothing_else_through(host, user):
    user.sudoers = f"lab ALL=(root) NOPASSWD: {' '.join(plan_helper())} *"
    python, *options, module = plan_helper()
    others = [
        ["true"],
        [python, "-c", "pass"],
        [python, "-I", "-m", "banger.network"],
        [python, "-m", module, *GOOD],
        ["env", "SUDO_UID=0", *plan_helper(), *GOOD],
        ["SUDO_UID=4243", *plan_helper(), *GOOD[:5], "4243"],
        ["PYTHONPATH=/tmp", *plan_helper(), *GOOD],
        ["-u", "nobody", *plan_helper(), *GOOD],
    ]
    assert options == ["-I", "-m"]
    assert sys.executable.startswith(python[: python.rfind("/")])
    for words, (status, out) in zip(others, attempt(user, *others), strict=True):
        assert status == 1, words
        assert not out, words
    assert set(host.links()) == {"lo"}
    # The rule does let the helper through: else all of this would say nothing.
    assert attempt(user, [*plan_helper(), *GOOD]) == [[0, "banger-network-helper\n"]]
    assert "bgrac100006" in host.links()
