"""What an image wants to be run with, as it reaches a command."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from banger.errors import BangerError, Reason
from banger.guest.command import Surroundings
from banger.machine.image_config import RunAs, find_config, plan_entrypoint, plan_surroundings
from banger.machine.lifecycle import IMAGE_CONFIG, create
from banger.machine.machines import Machines
from banger.machine.record import Wish
from cache import Object, Store
from pipelines.oci.config import ImageConfig

_CONFIG = ImageConfig(env=(("A", "b"),), working_dir="/srv", user="app", entrypoint=("run", "it"), cmd=("--help",))


def test_a_machine_keeps_the_config_of_its_image(
    machines: Machines, wish: Wish, store: Store, artifacts: dict[str, Object]
) -> None:
    raw = json.dumps({"config": {"Env": ["A=b"], "User": "app"}}).encode()
    machine = create(machines, wish, store, {**artifacts, IMAGE_CONFIG: store.put_bytes(raw)}, None)
    assert find_config(machines, machine) == ImageConfig(env=(("A", "b"),), user="app")
    other = create(machines, replace(wish, name="other"), store, artifacts, None)
    assert find_config(machines, other) is None


def test_root_is_who_runs_things_unless_the_image_s_user_is_asked_for() -> None:
    assert plan_surroundings(_CONFIG, RunAs.ROOT) == Surroundings((("A", "b"),), "/srv", None)
    assert plan_surroundings(_CONFIG, RunAs.IMAGE) == Surroundings((("A", "b"),), "/srv", "app")
    assert plan_surroundings(None, RunAs.IMAGE) == Surroundings()


@pytest.mark.parametrize("user", ["", "root", "0"])
def test_an_image_that_names_nobody_or_root_needs_no_looking_up(user: str) -> None:
    assert plan_surroundings(ImageConfig(user=user), RunAs.IMAGE) == Surroundings()


@pytest.mark.parametrize(("folder", "entered"), [("srv/a", "/srv/a"), ("//srv", "/srv"), ("", None)])
def test_a_folder_begins_at_the_root(folder: str, entered: str | None) -> None:
    assert plan_surroundings(ImageConfig(working_dir=folder), RunAs.ROOT).folder == entered


def test_arguments_take_the_place_of_the_command() -> None:
    assert plan_entrypoint(_CONFIG, "x", []) == ["run", "it", "--help"]
    assert plan_entrypoint(_CONFIG, "x", ["a", "b"]) == ["run", "it", "a", "b"]
    assert plan_entrypoint(ImageConfig(cmd=("sh",)), "x", []) == ["sh"]
    assert plan_entrypoint(ImageConfig(cmd=("sh",)), "x", ["ls"]) == ["ls"]


@pytest.mark.parametrize("config", [None, ImageConfig()])
@pytest.mark.parametrize("arguments", [[], ["ls"]])
def test_an_image_without_an_entrypoint_is_refused(config: ImageConfig | None, arguments: list[str]) -> None:
    with pytest.raises(BangerError) as caught:
        plan_entrypoint(config, "x", arguments)
    assert caught.value.reason is Reason.BAD_INPUT
