"""Results of steps on their way into the remote cache of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from banger.errors import BangerError, Reason
from banger.settings import Settings
from banger.sizes import format_bytes
from cache import Store
from catalog.local import Named
from catalog.signatures import PrivateKey
from pipelines.remote_push import Pushed, push_named
from pipelines.reporter import Reporter


def push_results(settings: Settings, store: Store, find: Callable[[], Sequence[Named]], reporter: Reporter) -> Pushed:
    """Push what made the images and kernels that `find` gives; BAD_INPUT when there is no place or no key for it."""
    from pipelines.oci.push import open_pusher

    if settings.cache_remote is None:
        raise BangerError(
            "there is no remote cache to push to",
            reason=Reason.BAD_INPUT,
            hint='name a repository in the configuration: [cache] remote = "registry.example.com/team/cache"',
        )
    key = _load_key(settings)
    named = find()
    with open_pusher(settings.cache_remote, settings.registries) as pusher:
        return push_named(pusher, store, named, key, reporter)


def describe_pushed(settings: Settings, pushed: Pushed) -> str:
    size = format_bytes(pushed.bytes) if pushed.bytes else "nothing"
    return (
        f"{settings.cache_remote}: {pushed.sent_steps} of {pushed.steps} steps sent ({pushed.blobs} blobs, {size}), "
        f"{pushed.signatures} signed"
    )


def _load_key(settings: Settings) -> PrivateKey | None:
    """What to sign with. Where readers want signatures, nothing is pushed that they would refuse."""
    from pipelines.oci.signatures import load_public_key, load_signing_key

    key, path = load_signing_key(), settings.cache_remote_key
    if path is None:
        return key
    if key is None:
        raise BangerError(
            "the results of this cache have to be signed, and there is no key to sign with",
            reason=Reason.BAD_INPUT,
            hint="set BANGER_SIGNING_KEY to the file of the private key, and COSIGN_PASSWORD to its password",
        )
    if load_public_key(path) != key.public:
        raise BangerError(
            f"BANGER_SIGNING_KEY is not the private key of {path}",
            reason=Reason.BAD_INPUT,
            hint="cache.remote_key is the key that the results have to be signed with",
        )
    return key
