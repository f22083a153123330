import fcntl
import gc
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from banger.errors import BangerError, Reason
from cache import Digest, Holder, Store, WaitAbandoned, key_of

KEY = key_of("lock", 1, {}, {})
# From when on nobody believes any more that it comes.
PATIENCE_S = 60

HOLD = """
import sys
from pathlib import Path
from cache import Store
with Store.open(Path(sys.argv[1])).lock(sys.argv[2], "building the kernel"):
    print("ready", flush=True)
    sys.stdin.readline()
"""

WAIT = """
import sys
from pathlib import Path
from cache import Store
with Store.open(Path(sys.argv[1])).lock(sys.argv[2], "waiting", on_wait=lambda holder: print("ready", flush=True)):
    print("locked", flush=True)
"""

BUILD = """
import sys, threading, time
from pathlib import Path
from cache import Record, Store
root, key, log = Path(sys.argv[1]), sys.argv[2], open(sys.argv[3], "ab", buffering=0)
store = Store.open(root)

def want():
    with store.lock(key, "building"):
        record = store.find_record(key)
        if record is None:
            log.write(b"start\\n")
            time.sleep(0.2)
            obj = store.put_bytes(b"built")
            store.put_record(key, Record("step", 1, {}, {}, {"out": obj}, time.time(), 0.2))
            log.write(b"built\\n")
        else:
            assert store.path(record.outputs["out"]).read_bytes() == b"built"
            log.write(b"hit\\n")

threads = [threading.Thread(target=want) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def unexpected(holder: Holder) -> None:
    pytest.fail(f"waited for {holder}")


def is_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()


def test_many_threads_of_many_processes_build_once_and_all_see_it(store: Store, tmp_path: Path, start) -> None:
    log = tmp_path / "log"
    processes = [start(BUILD, store.root, KEY, log) for _ in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
    lines = log.read_text().split()
    assert Counter(lines) == {"start": 1, "built": 1, "hit": 15}
    assert lines[:2] == ["start", "built"]


def test_never_two_at_once_in_one_process(store: Store) -> None:
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(5):
            with store.lock(KEY, "counting"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                turns += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 25)


def test_different_keys_do_not_wait_for_each_other(store: Store) -> None:
    with store.lock(KEY, "one"), store.lock(key_of("lock", 2, {}, {}), "other", on_wait=unexpected):
        pass


def test_who_waits_is_told_once_for_whom(store: Store, start) -> None:
    before = time.time()
    process = start(HOLD, store.root, KEY)
    is_ready(process)
    heard: list[Holder] = []

    def hear(holder: Holder) -> None:
        heard.append(holder)
        process.stdin.write("go on\n")
        process.stdin.flush()

    with store.lock(KEY, "me", on_wait=hear):
        assert len(heard) == 1
    assert heard[0].pid == process.pid
    assert heard[0].what == "building the kernel"
    assert heard[0].since is not None
    assert before - 1 < heard[0].since < time.time()


def test_however_long_it_takes_it_is_told_once(store: Store) -> None:
    heard: list[Holder] = []
    looks = iter([False] * 6 + [True])
    with store.lock(KEY, "for long"), pytest.raises(WaitAbandoned):  # noqa: SIM117 - the inner one waits for the outer
        with store.lock(KEY, "me", on_wait=heard.append, cancelled=lambda: next(looks)):
            pass
    assert [holder.what for holder in heard] == ["for long"]


def test_a_free_lock_file_names_nobody(store: Store) -> None:
    path = store.root / "locks" / KEY
    with store.lock(KEY, "me"):
        assert b'"me"' in path.read_bytes()
    assert path.read_bytes() == b""


def test_a_lock_file_removed_between_opening_and_locking_is_not_the_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, times = store.root / "locks" / KEY, fcntl.flock, 0

    def late(fd: int, operation: int) -> None:
        nonlocal times
        times += 1
        if times == 1:
            path.unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with store.lock(KEY, "me"), pytest.raises(WaitAbandoned), store.lock(KEY, "other", cancelled=lambda: True):
        pass


def test_a_killed_holder_frees_its_lock(store: Store, start) -> None:
    process = start(HOLD, store.root, KEY)
    is_ready(process)
    killed = 0.0

    def kill(holder: Holder) -> None:
        nonlocal killed
        assert holder.pid == process.pid
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()

    with store.lock(KEY, "me", on_wait=kill):
        assert time.monotonic() - killed < PATIENCE_S


def test_a_free_lock_says_nothing_even_if_its_last_holder_was_killed(store: Store, start) -> None:
    process = start(HOLD, store.root, KEY)
    is_ready(process)
    process.kill()
    process.wait()
    with store.lock(KEY, "me", on_wait=unexpected):
        pass


def test_ctrl_c_ends_the_waiting_of_the_main_thread(store: Store, start) -> None:
    with store.lock(KEY, "for long"):
        process = start(WAIT, store.root, KEY)
        is_ready(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert "KeyboardInterrupt" in err


def test_a_waiting_thread_can_be_called_off(store: Store) -> None:
    stop, waiting = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            with store.lock(KEY, "me", on_wait=lambda _: waiting.set(), cancelled=stop.is_set):
                pass
        except WaitAbandoned as error:
            raised.append(error)

    with store.lock(KEY, "for long"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(PATIENCE_S)
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert raised[0].reason is Reason.UNAVAILABLE
    assert "for long" in str(raised[0])
    with store.lock(KEY, "free again", on_wait=unexpected):
        pass


def test_an_error_inside_frees_the_lock(store: Store) -> None:
    with pytest.raises(RuntimeError), store.lock(KEY, "failing"):
        raise RuntimeError
    with store.lock(KEY, "next", on_wait=unexpected):
        pass


def test_an_error_of_the_listener_frees_nothing_and_leaks_nothing(store: Store) -> None:
    def fail(_: Holder) -> None:
        raise RuntimeError

    gc.collect()  # what earlier tests left open is closed now, and not in between
    before = len(list(Path("/proc/self/fd").iterdir()))
    with store.lock(KEY, "held"), pytest.raises(RuntimeError), store.lock(KEY, "me", on_wait=fail):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid":1e999,"what":"","since":0}', b"[" * 4096, b"\xff"])
def test_a_holder_that_wrote_nonsense_is_somebody(store: Store, content: bytes) -> None:
    path = store.root / "locks" / KEY
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    heard: list[Holder] = []

    def hear(holder: Holder) -> None:
        heard.append(holder)
        os.close(fd)

    with store.lock(KEY, "me", on_wait=hear):
        assert heard == [Holder(None, "", None)]


def test_a_lock_file_that_was_removed_excludes_nobody_and_is_not_taken_for_the_lock(store: Store) -> None:
    """What a `gc` does to old lock files: it takes the lock and removes the name, while somebody waits."""
    path = store.root / "locks" / KEY
    order: list[str] = []
    waiting, removed = threading.Event(), threading.Event()

    def wait() -> None:
        with store.lock(KEY, "waiting", on_wait=lambda _: waiting.set()):
            order.append("waiter")
            removed.wait(PATIENCE_S)

    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(PATIENCE_S)
    path.unlink()
    while not order:  # the waiter sees that the name is gone, and locks a new file while the old one is still locked
        time.sleep(0.01)
    os.close(fd)
    with pytest.raises(WaitAbandoned), store.lock(KEY, "me", cancelled=lambda: True):
        order.append("both")
    removed.set()
    thread.join()
    assert order == ["waiter"]


def test_a_forked_child_does_not_keep_the_lock(store: Store) -> None:
    """As `subprocess` has one for a moment: it shares the descriptor until it starts its program."""
    ready, go = os.pipe()
    with store.lock(KEY, "parent"):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)
            os._exit(0)
    try:
        with store.lock(KEY, "next", cancelled=lambda: True):
            pass
    finally:
        os.close(go)
        os.waitpid(child, 0)
        os.close(ready)


def test_a_key_that_is_none_cannot_name_a_lock_file(store: Store) -> None:
    with pytest.raises(BangerError), store.lock(Digest("../../x"), "me"):
        pass
