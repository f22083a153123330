"""What Firecracker is told, checked word by word, and against its own description of its API."""

from __future__ import annotations

import re
import signal

import pytest

from banger.errors import BangerError, Reason
from banger.vmm import process
from banger.vmm.firecracker import Put, _send, plan_argv, plan_requests

# The properties in src/firecracker/swagger/firecracker.yaml at v1.10.1.
FIELDS_OF_1_10 = {
    "machine-config": {"cpu_template", "huge_pages", "mem_size_mib", "smt", "track_dirty_pages", "vcpu_count"},
    "boot-source": {"boot_args", "initrd_path", "kernel_image_path"},
    "drives": {
        "cache_type",
        "drive_id",
        "io_engine",
        "is_read_only",
        "is_root_device",
        "partuuid",
        "path_on_host",
        "rate_limiter",
        "socket",
    },
    "network-interfaces": {"guest_mac", "host_dev_name", "iface_id", "rx_rate_limiter", "tx_rate_limiter"},
    "vsock": {"guest_cid", "uds_path", "vsock_id"},
    "entropy": {"rate_limiter"},
    "actions": {"action_type"},
}


def test_a_spec_becomes_exactly_these_requests_in_this_order(stage) -> None:
    folder = stage.folder
    assert plan_requests(stage.spec) == (
        Put("/machine-config", {"vcpu_count": 2, "mem_size_mib": 512}),
        Put(
            "/boot-source",
            {
                "kernel_image_path": f"{folder}/vmlinux",
                "initrd_path": f"{folder}/initramfs",
                "boot_args": "console=ttyS0 reboot=k",
            },
        ),
        Put(
            "/drives/root",
            {
                "drive_id": "root",
                "path_on_host": f"{folder}/root.erofs",
                "is_root_device": False,
                "is_read_only": True,
            },
        ),
        Put(
            "/drives/work",
            {
                "drive_id": "work",
                "path_on_host": f"{folder}/work.ext4",
                "is_root_device": False,
                "is_read_only": False,
                "cache_type": "Writeback",
            },
        ),
        Put(
            "/network-interfaces/eth0",
            {"iface_id": "eth0", "host_dev_name": "tap-box", "guest_mac": "02:00:00:00:00:05"},
        ),
        Put("/vsock", {"guest_cid": 3, "uds_path": f"{folder}/run/vsock.sock"}),
        Put("/entropy", {}),
        Put("/actions", {"action_type": "InstanceStart"}),
    )


def test_a_machine_without_a_network_card_gets_none(stage) -> None:
    paths = [put.path for put in plan_requests(stage.with_spec(nic=None).spec)]
    assert not [path for path in paths if path.startswith("/network-interfaces")]


@pytest.mark.parametrize("vcpus", [0, 33])
def test_a_number_of_cpus_that_firecracker_cannot_give_is_refused_before_anything_starts(stage, vcpus) -> None:
    with pytest.raises(BangerError, match=f"wants {vcpus}") as caught:
        stage.firecracker().start(stage.with_spec(vcpus=vcpus).spec)
    assert caught.value.reason is Reason.BAD_INPUT
    assert not stage.spec.log.exists()


@pytest.mark.parametrize("name", ["box", "my_box.1", "--no-seccomp", "ü" * 3, "a" * 80, ""])
def test_any_name_becomes_an_id_that_firecracker_takes(stage, name) -> None:
    argv = plan_argv("firecracker", stage.with_spec(name=name).spec)
    assert re.fullmatch("[A-Za-z0-9][A-Za-z0-9-]{0,63}", argv[argv.index("--id") + 1])


def test_the_kernel_can_load_modules_and_hear_ctrl_alt_del(stage) -> None:
    words = stage.firecracker().kernel_words()
    assert {"console=ttyS0", "reboot=k", "panic=1"} < set(words)
    assert not {"nomodule", "i8042.nopnp", "8250.nr_uarts=0"} & set(words)


def test_every_request_satisfies_firecrackers_own_description(stage, api_schema) -> None:
    identity = stage.firecracker(schema=api_schema).start(stage.spec)
    assert process.is_alive(identity)
    assert stage.requests() == [(put.path, put.body) for put in plan_requests(stage.spec)]


def test_ctrl_alt_del_satisfies_the_description_and_ends_the_process(stage, api_schema) -> None:
    firecracker = stage.firecracker(schema=api_schema)
    identity = firecracker.start(stage.spec)
    firecracker.press_power_button(stage.spec.runtime_dir)
    assert process.wait_gone(identity, 30)


@pytest.mark.parametrize(
    "put",
    [
        Put("/entropy", {"speed": "high"}),
        Put("/machine-config", {"vcpu_count": 33, "mem_size_mib": 512}),
        Put("/machine-config", {"vcpu_count": 1}),
        Put("/drives/a", {"drive_id": "a", "is_root_device": "no"}),
        Put("/drives/a-b", {"drive_id": "a-b", "is_root_device": False}),
        Put("/floppy", {}),
    ],
)
def test_the_judge_of_these_tests_refuses_what_the_description_does_not_allow(stage, api_schema, put) -> None:
    stage.firecracker(schema=api_schema).start(stage.spec)
    with pytest.raises(BangerError, match=r"deserializing|Invalid request"):
        _send(stage.spec.runtime_dir / "firecracker.sock", put, 30)


def test_a_machine_starts_and_its_agent_is_reached_without_losing_a_byte(stage) -> None:
    firecracker = stage.firecracker()
    firecracker.start(stage.spec)
    with firecracker.connect_agent(stage.spec.runtime_dir, 30) as agent:
        assert agent.gettimeout() is None
        assert agent.makefile("rb").read() == b"bytes of the agent"


def test_the_log_holds_the_guests_console(stage) -> None:
    stage.firecracker().start(stage.spec)
    assert b"Linux version" in stage.spec.log.read_bytes()


def test_a_program_that_is_slow_to_open_its_socket_is_waited_for(stage) -> None:
    assert process.is_alive(stage.firecracker({"open": "late"}).start(stage.spec))


def test_sockets_of_a_killed_monitor_do_not_hinder_the_next_start(stage) -> None:
    firecracker = stage.firecracker()
    first = firecracker.start(stage.spec)
    process.kill(first, signal.SIGKILL)
    assert process.wait_gone(first, 30)
    assert len(list(stage.spec.runtime_dir.iterdir())) == 2
    assert process.is_alive(firecracker.start(stage.spec))


def test_a_machine_whose_monitor_is_gone_has_no_power_button(stage) -> None:
    with pytest.raises(BangerError) as caught:
        stage.firecracker().press_power_button(stage.spec.runtime_dir)
    assert caught.value.reason is Reason.MONITOR_DIED


def test_no_request_uses_a_field_that_is_newer_than_firecracker_1_10(stage) -> None:
    for put in plan_requests(stage.spec):
        assert set(put.body) <= FIELDS_OF_1_10[put.path.split("/")[1]]
