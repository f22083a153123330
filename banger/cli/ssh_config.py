"""`banger ssh-config`: `ssh NAME.vm` from any terminal."""

from __future__ import annotations

import click

from banger.cli.app import App, pass_app
from banger.errors import BangerError, Reason


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--install", "is_wanted", is_flag=True, help="Put that line into ~/.ssh/config.")
@click.option("--uninstall", "is_unwanted", is_flag=True, help="Take it out again.")
@pass_app
def ssh_config(app: App, is_wanted: bool, is_unwanted: bool) -> None:
    """Print the line for ~/.ssh/config with which `ssh NAME.vm` works.

    It includes a file that banger keeps up to date with your machines.
    """
    from banger.machine.ssh_config import format_include, install, uninstall, user_config_path, write_ssh_config

    if is_wanted and is_unwanted:
        raise BangerError("--install does not go with --uninstall", reason=Reason.BAD_INPUT)
    user_config = user_config_path()
    if is_unwanted:
        is_changed = uninstall(user_config)
        app.say(f"{user_config} {'no longer includes' if is_changed else 'does not include'} banger's machines")
        return
    include = format_include(write_ssh_config(app.machines))
    if is_wanted:
        is_changed = install(user_config, include)
        app.say(f"{user_config} {'now includes' if is_changed else 'includes'} banger's machines: ssh NAME.vm")
    else:
        click.echo(include)
