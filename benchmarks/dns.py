"""Names under a steady load: how long an answer takes, with the server in a process of its own.

Each question is sent when it is due, whether or not the one before was answered, and what is late counts from when
it was due.
"""

from __future__ import annotations

import itertools
import select
import socket
import statistics
import struct
import sys
import time

from common import describe_machine

from tests.dns.questions import ask
from tests.dns.serving import serve

_RATE = 200
_DURATION_S = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
_AIM_MS = 5.0
_MACHINES = {f"machine-{number:02}": f"172.16.0.{number + 2}" for number in range(30)}


def measure(port: int) -> tuple[list[float], int]:
    """Milliseconds of each answer, and how many never came."""
    queries = itertools.cycle([ask(f"{name}.vm", edns=1232) for name in _MACHINES])
    due: dict[int, float] = {}
    took_ms: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        begin = time.perf_counter()
        total = int(_RATE * _DURATION_S)
        for number in range(total + 1):
            # After the last question a second's grace.
            at = begin + number / _RATE if number < total else time.perf_counter() + 1
            while (left_s := at - time.perf_counter()) > 0:
                if select.select([client], [], [], left_s)[0]:
                    (known,) = struct.unpack_from("!H", client.recv(65535))
                    took_ms.append((time.perf_counter() - due.pop(known)) * 1000)
                if number == total and not due:
                    break
            if number < total:
                due[number] = at
                client.send(struct.pack("!H", number) + next(queries)[2:])
    return took_ms, len(due)


def main() -> None:
    describe_machine()
    with serve(machines=_MACHINES) as port:
        took_ms, lost = measure(port)
    median, slow = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[-1]
    print(f"{len(took_ms)} answers of {len(_MACHINES)} names at {_RATE} a second, {lost} lost")
    print(f"median {median:.2f} ms, 99 % within {slow:.2f} ms, longest {max(took_ms):.2f} ms")
    print(f"aim: a median below {_AIM_MS} ms: {'met' if median < _AIM_MS else 'missed'}")


if __name__ == "__main__":
    main()
