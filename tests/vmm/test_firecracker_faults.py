"""Everything that can go wrong while a machine starts: each time a clear error, and nothing left behind."""

from __future__ import annotations

import time

import pytest

from banger.errors import BangerError, Reason
from banger.vmm import firecracker as driver

PATHS = [
    "/machine-config",
    "/boot-source",
    "/drives/root",
    "/drives/work",
    "/network-interfaces/eth0",
    "/vsock",
    "/entropy",
    "/actions",
]


def fail_to_start(stage, faults, timeout_s=60.0) -> BangerError:
    """The error of a start that must fail, after checking that it left nothing."""
    with pytest.raises(BangerError) as caught:
        stage.firecracker(faults, timeout_s=timeout_s).start(stage.spec)
    assert stage.leftovers() == []
    assert all(c.isprintable() or c == "\n" for c in caught.value.message)
    assert len(caught.value.message) < 3000
    return caught.value


def test_a_program_that_dies_at_once_is_shown_with_its_last_words(stage) -> None:
    error = fail_to_start(stage, {"open": "die"})
    assert error.reason is Reason.MONITOR_DIED
    assert "no KVM here" in error.message
    assert f"--api-sock {stage.spec.runtime_dir}" in error.message


def test_last_words_of_an_earlier_run_are_not_taken_for_those_of_this_one(stage) -> None:
    stage.spec.log.write_text("words of yesterday\n")
    assert "yesterday" not in fail_to_start(stage, {"open": "die"}).message


def test_arguments_that_the_program_does_not_know_are_shown_with_its_complaint(stage, monkeypatch) -> None:
    plan = driver.plan_argv
    monkeypatch.setattr(driver, "plan_argv", lambda *words: (*plan(*words), "--no-such-thing"))
    error = fail_to_start(stage, {})
    assert error.reason is Reason.MONITOR_DIED
    assert 'UnexpectedArgument("--no-such-thing")' in error.message


def test_a_program_that_never_opens_its_socket_is_given_up_in_time(stage) -> None:
    begin = time.monotonic()
    # The time must be enough for the program to say something, too.
    error = fail_to_start(stage, {"open": "never"}, timeout_s=5)
    assert 5 <= time.monotonic() - begin < 50
    assert error.reason is Reason.TIMEOUT
    assert "still thinking" in error.message


def test_a_missing_program_is_named(stage) -> None:
    with pytest.raises(BangerError, match="no-such-firecracker") as caught:
        driver.Firecracker("no-such-firecracker").start(stage.spec)
    assert caught.value.reason is Reason.MISSING_PROGRAM
    assert stage.leftovers() == []


@pytest.mark.parametrize("path", PATHS)
def test_a_refused_request_is_shown_with_firecrackers_reason(stage, path) -> None:
    error = fail_to_start(stage, {path: "not \x1b[31mtoday"})
    assert error.reason is (Reason.UNAVAILABLE if path == "/actions" else Reason.BAD_INPUT)
    assert path in error.message
    assert r"not \x1b[31mtoday" in error.message


def test_a_refusal_is_shown_also_when_the_process_ends_right_after_it(stage) -> None:
    error = fail_to_start(stage, {"/actions": "fatal: the host has no memory"})
    assert error.reason is Reason.UNAVAILABLE
    assert "the host has no memory" in error.message


def test_a_host_without_kvm_is_told_what_is_missing(stage) -> None:
    fault = "Internal error: Kvm error: Error creating KVM object: No such file or directory (os error 2)"
    assert "/dev/kvm" in fail_to_start(stage, {"/actions": fault}).hint


@pytest.mark.parametrize("path", ["/machine-config", "/vsock", "/actions"])
def test_a_process_that_dies_between_configuration_and_start_is_shown_with_its_last_words(stage, path) -> None:
    error = fail_to_start(stage, {path: "die"})
    assert error.reason is Reason.MONITOR_DIED
    assert "bad syscall (4)" in error.message


def test_a_process_that_dies_after_an_accepted_request_is_shown_with_its_last_words(stage) -> None:
    error = fail_to_start(stage, {"after /entropy": "die"})
    assert error.reason is Reason.MONITOR_DIED
    assert "could not be run" in error.message


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("close", "broke off"),
        ("garbage", r"\x1b[2JSSH-2.0"),
        ("huge", "unreasonable length"),
        ("not json", "status 500"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error_that_names_the_request(stage, fault, text) -> None:
    error = fail_to_start(stage, {"/boot-source": fault})
    assert error.reason is Reason.UNAVAILABLE
    assert "PUT /boot-source" in error.message
    assert text in error.message


def test_a_process_that_dies_in_the_middle_of_an_answer_is_shown_with_its_last_words(stage) -> None:
    error = fail_to_start(stage, {"/vsock": "close and die"})
    assert error.reason is Reason.MONITOR_DIED
    assert "killed in the middle" in error.message


def test_a_request_without_an_answer_is_given_up_in_time(stage) -> None:
    # The time must be enough for the program to start, too.
    error = fail_to_start(stage, {"/entropy": "silence"}, timeout_s=6)
    assert error.reason is Reason.TIMEOUT
    assert "PUT /entropy" in error.message


def test_a_missing_disk_is_named_by_its_request(stage) -> None:
    stage.spec.drives[1].path.unlink()
    error = fail_to_start(stage, {})
    assert error.reason is Reason.BAD_INPUT
    assert "/drives/work" in error.message
    assert "No such file or directory" in error.message


def test_an_interrupted_start_leaves_nothing(stage, monkeypatch) -> None:
    send = driver._send

    def interrupted(api, put, timeout_s):
        if put.path == "/actions":
            raise KeyboardInterrupt
        send(api, put, timeout_s)

    monkeypatch.setattr(driver, "_send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.firecracker().start(stage.spec)
    assert stage.leftovers() == []
