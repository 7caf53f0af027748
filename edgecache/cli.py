"""The command line. Each command imports what it needs when it runs, so that `--version` and `--help` are quick.

stdout is for data, stderr for talk. Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 no edge answers,
130 interrupted.
"""

import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

    from edgecache.settings import Loaded

PROGRAM = "edgecache"
EXAMPLES = """Examples:

  edgecache demo
  edgecache say 'Hello edge' -o hello.wav
  edgecache check --probe -c edge.yaml
"""


def main() -> None:
    """The `edgecache` program."""
    if sys.argv[1:] in (["--version"], ["version"]):
        print(_version())
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    code = _ended()
    raise SystemExit(code if _flushed() else code or 1)


def _ended() -> int:
    """Runs the command that was typed: its exit code."""
    from edgecache.commands.terminal import FAILED, FULL, INTERRUPTED, USAGE, Ended, complain
    from edgecache.errors import SettingsError

    try:
        _program()(prog_name=PROGRAM)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SettingsError as error:
        complain(str(error))
        return USAGE
    except Ended as error:
        complain(str(error))
        return error.code
    except OSError as error:
        if error.errno not in FULL:
            raise
        complain(f"stdout can't be written: {error.strerror}")
        return FAILED
    return 0


def _flushed() -> bool:
    """Whether all that was printed could be; a reader that left (`| head -1`) needs not be told."""
    if sys.stdout is None:  # closed by who started us: `>&-`
        return True
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: stdout can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more when it ends, and complains
        return False
    return True


def _version() -> str:
    from importlib.metadata import version

    return f"{PROGRAM} {version(PROGRAM)}"


def _load(config: Path | None, flags: Mapping[str, str] | None = None) -> "Loaded":
    """flags: settings as variables, over those of the environment."""
    from edgecache.settings import load

    return load(config, {**os.environ, **(flags or {})})


def _run(main: Any) -> None:
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _program() -> "typer.Typer":
    import typer

    app = typer.Typer(
        name=PROGRAM,
        help="An edge cache for text-to-speech: hears a request once and speaks it for ever after.",
        epilog=EXAMPLES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    keys = typer.Typer(help="API keys of clients.", no_args_is_help=True)
    config = typer.Typer(help="What is configured, and what may be.", no_args_is_help=True)
    for register in (_serving, _demonstrating, _speaking, _looking, _choosing, _checking, _describing):
        register(app)
    _configuration(config)
    _keys(keys)
    app.add_typer(config, name="config")
    app.add_typer(keys, name="keys")
    return app


def _serving(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Listen, ListenAdmin

    @app.command()
    def serve(config: Config = None, listen: Listen = None, admin: ListenAdmin = None) -> None:
        """Run the daemon until SIGTERM or Ctrl-C; a second one stops at once."""
        from edgecache.commands.addresses import listening, of_flags
        from edgecache.errors import SettingsError

        flags = {**listening("--listen", "listen", listen), **listening("--admin", "admin", admin)}
        try:
            loaded = _load(config, flags)
            from edgecache.node import serve as serve_node

            _run(serve_node(loaded.settings))
        except SettingsError as error:
            raise SettingsError(of_flags(error, flags)) from error


def _demonstrating(app: "typer.Typer") -> None:
    from edgecache.commands.options import (
        DemoPort,
        ListKnobs,
        OriginHost,
        OriginKey,
        OriginName,
        OriginPort,
        Speaker,
        SpokenBy,
        TurnedKnob,
    )

    @app.command()
    def demo(port: DemoPort = 8080, voice: SpokenBy = Speaker.AUTO) -> None:
        """A small world on this machine: two TTS clusters, one near and one far, and an edge in front."""
        from edgecache.demo.world import World

        raise SystemExit(World(port, voice.value).run())

    @app.command()
    def origin(
        name: OriginName = "demo",
        host: OriginHost = "127.0.0.1",
        port: OriginPort = 9001,
        api_key: OriginKey = None,
        knob: TurnedKnob = None,
        knobs: ListKnobs = False,
    ) -> None:
        """Run the demo TTS cluster: real speech from espeak-ng, or a byte-stable tone; with knobs to misbehave."""
        from edgecache.commands.terminal import Misused
        from edgecache.demo.knobs import explained, parse
        from edgecache.errors import ClientError

        if knobs:
            print("\n".join(explained()))
            return
        try:
            turned = parse(knob or [])
        except ClientError as error:
            raise Misused(error.message) from error
        from edgecache.demo.origin import Origin, run

        try:
            _run(run(name, Origin(turned, host, port, api_key)))
        except OSError as error:
            raise Misused(f"can't listen at {host}:{port}: {error.strerror or error}; see --host and --port") from error


def _speaking(app: "typer.Typer") -> None:
    from edgecache.commands.options import DEFAULT_URL, ApiKey, Field, Fresh, Json, Language, Output, Text, Url, Voice

    @app.command()
    def say(
        text: Text,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        output: Output = None,
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        fresh: Fresh = False,
        as_json: Json = False,
    ) -> None:
        """Ask an edge for speech: saves the audio, and tells how it came. With -o - the audio goes to stdout."""
        from dataclasses import asdict

        from edgecache.commands.asking import Target
        from edgecache.commands.saying import STDOUT, wanted
        from edgecache.commands.saying import say as ask_for

        report = ask_for(Target(url, api_key), wanted(text, voice, language, field or []), output, fresh=fresh)
        stream = sys.stderr if output == STDOUT else sys.stdout
        print(json.dumps(asdict(report)) if as_json else report.line(stream), file=stream)


def _looking(app: "typer.Typer") -> None:
    from edgecache.commands.options import DEFAULT_ADMIN, Admin, Field, Json, Language, Namespace, Text, Voice

    @app.command()
    def explain(
        text: Text,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        namespace: Namespace = None,
        admin: Admin = DEFAULT_ADMIN,
        as_json: Json = False,
    ) -> None:
        """Tell what a request would get and why: key, canonical utterance, tier, lifetime. Changes nothing."""
        from urllib.parse import quote

        from edgecache.commands.asking import Target, explained
        from edgecache.commands.saying import wanted

        path = "/explain" + (f"?namespace={quote(namespace, safe='')}" if namespace else "")
        _, told = Target(admin).ask_admin("POST", path, wanted(text, voice, language, field or []))
        print(json.dumps(told) if as_json else explained(told))

    @app.command()
    def healthcheck(admin: Admin = DEFAULT_ADMIN) -> None:
        """Exit 0 if the edge is ready, 1 if it is not, 3 if nobody answers; for containers."""
        from edgecache.commands.asking import Target

        status, told = Target(admin, timeout_s=5.0).ask_admin("GET", "/readyz")
        print(json.dumps(told))
        raise SystemExit(0 if status == 200 else 1)


def _choosing(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command("clusters")
    def _(
        admin: options.Admin = options.DEFAULT_ADMIN,
        watch: options.Watch = False,
        drain: options.DrainCluster = None,
        resume: options.ResumeCluster = None,
        as_json: options.Json = False,
    ) -> None:
        """The clusters of a running edge: how far and how well each is, which is asked, and why."""
        from edgecache.commands import clusters
        from edgecache.commands.asking import Target
        from edgecache.commands.terminal import Misused

        target = Target(admin)
        if sum((watch, drain is not None, resume is not None)) > 1:
            raise Misused("--watch, --drain and --resume do not go together")
        for name, drained in ((drain, True), (resume, False)):
            if name is not None:
                clusters.drain(target, name, drained=drained)
        if watch:
            clusters.watch(target, sys.stdout)
        clusters.show(clusters.told(target), sys.stdout, as_json=as_json)


def _checking(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Json, Probe, Strict

    @app.command()
    def check(config: Config = None, probe: Probe = False, strict: Strict = False, as_json: Json = False) -> None:
        """Check a configuration: every mistake at once, with its place and what to do."""
        from edgecache.commands.checking import report, summary
        from edgecache.commands.terminal import USAGE
        from edgecache.errors import SettingsError
        from edgecache.settings import problems_of

        try:
            loaded = _load(config)
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
        told = _version()
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
            print(_version())
            raise SystemExit


def _configuration(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Json, WithOrigin

    @app.command()
    def show(config: Config = None, origin: WithOrigin = False, as_json: Json = False) -> None:
        """Every setting and its value; secrets are hidden."""
        from edgecache.commands.checking import configured

        print(configured(_load(config), origin=origin, as_json=as_json))

    @app.command()
    def schema() -> None:
        """The JSON Schema of the configuration, for editors."""
        from edgecache.settings import schema as described

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
