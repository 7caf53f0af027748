"""Commands about this program and its configuration: `check`, `config`, `keys`, `version`, `completion`."""

import io
import json
import os
import sys
from typing import TYPE_CHECKING

from edgecache.verbs.running import PROGRAM, load, spelled_version

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    import typer

    config = typer.Typer(help="What is configured, and what may be.", no_args_is_help=True)
    keys = typer.Typer(help="API keys of clients.", no_args_is_help=True)
    _checking(app)
    _describing(app)
    _configuration(config)
    _keys(keys)
    app.add_typer(config, name="config")
    app.add_typer(keys, name="keys")


def _checking(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Json, Probe, Strict

    @app.command()
    def check(config: Config = None, probe: Probe = False, strict: Strict = False, as_json: Json = False) -> None:
        """Check a configuration: every mistake at once, with its place and what to do."""
        from edgecache.commands.checking import report, summary
        from edgecache.commands.terminal import USAGE
        from edgecache.errors import SettingsError
        from edgecache.loading import problems_of

        try:
            loaded = load(config)
        except SettingsError as error:
            if not as_json:
                raise
            print(json.dumps({"ok": False, "problems": problems_of(error), "findings": []}))
            raise SystemExit(USAGE) from None
        findings = [summary(loaded)]
        if probe:
            from edgecache.commands import probing

            findings += probing.probe(loaded.settings)
        raise SystemExit(report(findings, strict=strict, as_json=as_json))


def _describing(app: "typer.Typer") -> None:
    from edgecache.commands.options import Json, ShowVersion, WhichShell

    @app.command()
    def version(as_json: Json = False) -> None:
        """Print the version."""
        told = spelled_version()
        print(json.dumps({"version": told.split()[1], "python": sys.version.split()[0]}) if as_json else told)

    @app.command()
    def completion(shell: WhichShell) -> None:
        """Print the script that completes commands in a shell: edgecache completion bash >> ~/.bashrc."""
        from contextlib import redirect_stdout, suppress

        os.environ["_EDGECACHE_COMPLETE"] = f"source_{shell.value}"
        with redirect_stdout(io.StringIO()) as script, suppress(SystemExit):
            app(prog_name=PROGRAM)
        print(script.getvalue().strip())  # zsh wants its first line first

    @app.callback(invoke_without_command=True)
    def top(show_version: ShowVersion = False) -> None:
        if show_version:
            print(spelled_version())
            raise SystemExit


def _configuration(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Json, WithOrigin

    @app.command()
    def show(config: Config = None, origin: WithOrigin = False, as_json: Json = False) -> None:
        """Every setting and its value; secrets are hidden."""
        from edgecache.commands.checking import configured

        print(configured(load(config), origin=origin, as_json=as_json))

    @app.command()
    def schema() -> None:
        """The JSON Schema of the configuration, for editors."""
        from edgecache.loading import schema as described

        print(json.dumps(described(), indent=2))


def _keys(app: "typer.Typer") -> None:
    from edgecache.commands.options import KeyName, Shared

    @app.command()
    def new(name: KeyName, namespace: Shared = None) -> None:
        """Make an API key: the key goes to stderr, once; the line for the keys file to stdout."""
        import re

        from edgecache.commands.terminal import Misused, talk
        from edgecache.delivery.auth import new_key

        for word in (name, name if namespace is None else namespace):
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", word):
                raise Misused(f"{word!r} is not a name: letters, digits, `.`, `_` and `-`, at most 64")
        key, line = new_key(name, namespace)
        talk(f"API key of {name} (it is not kept anywhere; hand it over now): {key}")
        print(line)
