"""The command line. Each command imports what it needs when it runs, so that `--version` and `--help` are quick.

stdout is for data, stderr for talk. Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 no edge answers.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

if TYPE_CHECKING or sys.argv[1:] not in (["--version"], ["version"]):
    import typer

if TYPE_CHECKING:
    from edgecache.settings import Loaded

FAILED, USAGE, UNREACHABLE = 1, 2, 3
DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_ADMIN = "http://127.0.0.1:9901"


def main() -> None:
    """The `edgecache` program."""
    if sys.argv[1:] in (["--version"], ["version"]):
        print(_version())
        return
    try:
        _program()()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None


def _version() -> str:
    from importlib.metadata import version

    return f"edgecache {version('edgecache')}"


def _talk(line: str) -> None:
    print(line, file=sys.stderr)


def _fail(line: str, code: int) -> NoReturn:
    _talk(f"error: {line}" if not line.startswith("error") else line)
    raise SystemExit(code)


def _load(config: Path | None) -> "Loaded":
    from edgecache.errors import SettingsError
    from edgecache.settings import load

    try:
        return load(config, os.environ)
    except SettingsError as error:
        _fail(str(error), USAGE)


def _run(main: Any) -> None:
    import asyncio

    import uvloop

    from edgecache.errors import SettingsError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except SettingsError as error:
        _fail(str(error), USAGE)


def _target(url: str, api_key: str | None) -> Any:
    from edgecache.commands.asking import Target

    return Target(url, api_key)


def _ask(asking: Any) -> Any:
    """Runs one request to an edge; what goes wrong becomes an exit code."""
    from edgecache.commands.asking import Refused, Unreachable

    try:
        return asking()
    except Unreachable as error:
        _fail(str(error), UNREACHABLE)
    except Refused as error:
        _fail(str(error), FAILED)


def _program() -> "typer.Typer":
    app = typer.Typer(
        name="edgecache",
        help="An edge cache for text-to-speech: hears a request once and speaks it for ever after.",
        epilog="Try: edgecache demo   ·   edgecache say 'Hello edge'   ·   edgecache check --probe -c config/edge.yaml",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    keys = typer.Typer(help="API keys of clients.", no_args_is_help=True)
    config = typer.Typer(help="What is configured, and what may be.", no_args_is_help=True)
    for register in (_serving, _demonstrating, _asking, _checking):
        register(app)
    _configuration(config)
    _keys(keys)
    app.add_typer(config, name="config")
    app.add_typer(keys, name="keys")
    return app


if TYPE_CHECKING or "typer" in sys.modules:
    Config = Annotated[
        Path | None, typer.Option("--config", "-c", envvar="EDGECACHE_CONFIG", help="The YAML configuration.")
    ]
    Url = Annotated[str, typer.Option("--url", envvar="EDGECACHE_URL", help="Where the edge listens.")]
    Admin = Annotated[str, typer.Option("--admin", envvar="EDGECACHE_ADMIN_URL", help="Where its admin listens.")]
    ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="EDGECACHE_API_KEY", help="Your API key.")]
    Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
    Text = Annotated[str, typer.Argument(help="What is to be spoken.")]
    Voice = Annotated[str | None, typer.Option("--voice", "-v", help="voice_id")]
    Language = Annotated[str | None, typer.Option("--language", "-l", help="language")]
    Field = Annotated[
        list[str] | None, typer.Option("--field", help="Any other field, as NAME=VALUE (JSON, else text).")
    ]


def _fields(text: str, voice: str | None, language: str | None, others: list[str] | None) -> dict[str, object]:
    fields: dict[str, object] = {"text": text}
    if voice is not None:
        fields["voice_id"] = voice
    if language is not None:
        fields["language"] = language
    for other in others or []:
        name, is_pair, spelled = other.partition("=")
        if not is_pair:
            _fail(f"--field takes NAME=VALUE, not {other!r}", USAGE)
        try:
            fields[name] = json.loads(spelled)
        except ValueError:
            fields[name] = spelled
    return fields


def _serving(app: "typer.Typer") -> None:
    @app.command()
    def serve(config: Config = None) -> None:
        """Run the daemon until SIGTERM or Ctrl-C; a second one stops at once."""
        loaded = _load(config)
        from edgecache.node import serve as serve_node

        _run(serve_node(loaded.settings))

    @app.command()
    def version(as_json: Json = False) -> None:
        """Print the version."""
        told = _version()
        print(json.dumps({"version": told.split()[1], "python": sys.version.split()[0]}) if as_json else told)

    @app.callback(invoke_without_command=True)
    def top(
        show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        if show_version:
            print(_version())
            raise typer.Exit


def _demonstrating(app: "typer.Typer") -> None:
    @app.command()
    def demo(
        port: Annotated[int, typer.Option(help="The edge's port; another is taken if it is in use.")] = 8080,
        voice: Annotated[str, typer.Option(help="espeak-ng, tone, or auto.")] = "auto",
    ) -> None:
        """A small world on this machine: two TTS clusters, one near and one far, and an edge in front."""
        from edgecache.demo.world import World

        raise SystemExit(World(port, voice).run())

    @app.command()
    def origin(
        name: Annotated[str, typer.Option(help="What it calls itself.")] = "demo",
        host: Annotated[str, typer.Option(help="Address.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(help="Port; 0: any.")] = 9001,
        api_key: Annotated[str | None, typer.Option(help="What clients must send.")] = None,
        knob: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; see --knobs.")] = None,
        knobs: Annotated[bool, typer.Option("--knobs", help="List the knobs and stop.")] = False,
    ) -> None:
        """Run the demo TTS cluster: real speech from espeak-ng, or a byte-stable tone; with knobs to misbehave."""
        from edgecache.demo.knobs import Knobs, explained, parse

        if knobs:
            print("\n".join(explained()))
            return
        from edgecache.demo.origin import Origin, run
        from edgecache.errors import ClientError

        try:
            turned: Knobs = parse(knob or [])
        except ClientError as error:
            _fail(error.message, USAGE)
        _run(run(name, Origin(turned, host, port, api_key)))


def _asking(app: "typer.Typer") -> None:
    @app.command()
    def say(
        text: Text,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the audio goes.")] = None,
        url: Url = DEFAULT_URL,
        api_key: ApiKey = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="A new take, which replaces the recording.")] = False,
        as_json: Json = False,
    ) -> None:
        """Ask an edge for speech: saves the audio, and tells how it came."""
        from dataclasses import asdict

        from edgecache.commands import asking

        wanted, target = _fields(text, voice, language, field), _target(url, api_key)
        _, report = _ask(lambda: asking.say(target, wanted, output, fresh=fresh))
        print(json.dumps(asdict(report)) if as_json else report.line())

    @app.command()
    def explain(
        text: Text,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        namespace: Annotated[str | None, typer.Option(help="Whose recordings; an API key's own is key-NAME.")] = None,
        admin: Admin = DEFAULT_ADMIN,
        as_json: Json = False,
    ) -> None:
        """Tell what a request would get and why: key, canonical utterance, tier, lifetime. Changes nothing."""
        body = json.dumps(_fields(text, voice, language, field)).encode()
        path = "/explain" + (f"?namespace={namespace}" if namespace else "")
        said = _ask(lambda: _target(admin, None).ask("POST", path, body))
        if said.status != 200:
            _fail(f"{said.status} {said.problem}", FAILED)
        told = json.loads(said.body)
        print(json.dumps(told) if as_json else "\n".join(f"{name:<16} {_shown(value)}" for name, value in told.items()))

    @app.command()
    def healthcheck(admin: Admin = DEFAULT_ADMIN) -> None:
        """Exit 0 if the edge is ready; for containers."""
        said = _ask(lambda: _target(admin, None).ask("GET", "/readyz"))
        print(said.body.decode())
        raise SystemExit(0 if said.status == 200 else FAILED)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _checking(app: "typer.Typer") -> None:
    @app.command()
    def check(
        config: Config = None,
        probe: Annotated[bool, typer.Option("--probe", help="Ask Redis and every cluster too.")] = False,
        strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
        as_json: Json = False,
    ) -> None:
        """Check a configuration: every mistake at once, with its place and what to do."""
        from edgecache.errors import SettingsError
        from edgecache.settings import load, problems_of

        try:
            loaded = load(config, os.environ)
        except SettingsError as error:
            if as_json:
                print(json.dumps({"ok": False, "problems": problems_of(error)}))
                raise SystemExit(USAGE) from None
            _fail(str(error), USAGE)
        _report(loaded, probe=probe, strict=strict, as_json=as_json)


def _report(loaded: "Loaded", *, probe: bool, strict: bool, as_json: bool) -> None:
    from dataclasses import asdict

    findings = []
    if probe:
        from edgecache.commands import checking

        findings = checking.probe(loaded.settings)
    if as_json:
        print(json.dumps({"ok": True, "findings": [asdict(finding) for finding in findings]}))
    else:
        print(f"ok       {loaded.path or 'no file'}: {len(loaded.settings.clusters)} clusters")
        for finding in findings:
            print(f"{finding.level:<8} {finding.what}  {finding.told}")
    levels = {finding.level for finding in findings}
    raise SystemExit(FAILED if "error" in levels else 1 if strict and "warning" in levels else 0)


def _configuration(app: "typer.Typer") -> None:
    @app.command()
    def show(
        config: Config = None,
        origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
        as_json: Json = False,
    ) -> None:
        """Every setting and its value; secrets are hidden."""
        from edgecache.settings import show as shown

        rows = shown(_load(config), origin=origin)
        if as_json:
            print(json.dumps([list(row) for row in rows]))
            return
        width = max(len(row[0]) for row in rows)
        for key, value, *where in rows:
            print(f"{key:<{width}}  {value}" + (f"   # {where[0]}" if origin else ""))

    @app.command()
    def schema() -> None:
        """The JSON Schema of the configuration, for editors."""
        from edgecache.settings import schema as described

        print(json.dumps(described(), indent=2))


def _keys(app: "typer.Typer") -> None:
    @app.command()
    def new(
        name: Annotated[str, typer.Argument(help="Whose key it is; appears in logs.")],
        namespace: Annotated[str | None, typer.Option(help="Share recordings with all keys of this namespace.")] = None,
    ) -> None:
        """Make an API key: the key goes to stderr, once; the line for the keys file to stdout."""
        import re

        from edgecache.delivery.auth import new_key

        for word in (name, namespace or name):
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", word):
                _fail(f"{word!r} is not a name: letters, digits, `.`, `_` and `-`, at most 64", USAGE)
        key, line = new_key(name, namespace)
        _talk(f"API key of {name} (it is not kept anywhere; hand it over now): {key}")
        print(line)
