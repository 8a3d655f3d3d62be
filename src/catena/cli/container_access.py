"""The options of verbs that reach into registries and layouts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, dir_okay=False)


def access_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the verb receives ``access`` and ``repository``."""

    @functools.wraps(verb)
    def function(
        *,
        plain_http: bool,
        auth_file: Path | None,
        registry_ca: Path | None,
        **others: Any,  # noqa: ANN401 - the verb's own options, passed through
    ) -> Any:  # noqa: ANN401 - as above
        from catena.containers.images.opening import Access

        return verb(access=Access(plain_http, auth_file, registry_ca), **others)

    options = (
        click.option(
            "--repository",
            metavar="REGISTRY/NAME",
            help="Which repository is meant, for an image that is not in one.",
        ),
        click.option(
            "--plain-http", is_flag=True, help="No TLS; only for a registry on this machine."
        ),
        click.option(
            "--auth-file", type=_FILE, help="Credentials as `skopeo login` writes them, mode 0600."
        ),
        click.option("--registry-ca", type=_FILE, help="Trust only this CA for the registry."),
    )
    decorated: Callable[..., Any] = function
    for option in reversed(options):
        decorated = option(decorated)
    return decorated
