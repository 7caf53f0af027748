"""Commands that run a server: `serve`, `demo`, `origin`."""

from typing import TYPE_CHECKING

from edgecache.verbs.running import load, run

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    _serving(app)
    _demonstrating(app)


def _serving(app: "typer.Typer") -> None:
    from edgecache.commands.options import Config, Listen, ListenAdmin

    @app.command()
    def serve(config: Config = None, listen: Listen = None, admin: ListenAdmin = None) -> None:
        """Run the daemon until SIGTERM or Ctrl-C; a second one stops at once."""
        from edgecache.commands.addresses import listening, of_flags
        from edgecache.commands.terminal import Misused
        from edgecache.errors import SettingsError

        flags = {**listening("--listen", "listen", listen), **listening("--admin", "admin", admin)}
        try:
            loaded = load(config, flags)
            from edgecache.listening import contradiction, named

            given = [flag for flag, said in (("--listen", listen), ("--admin", admin)) if said is not None]
            if refused := contradiction(given, named()):
                raise Misused(refused)
            from edgecache.supervisor import serve as serve_daemon

            run(serve_daemon(loaded.settings))
        except SettingsError as error:
            raise SettingsError(of_flags(error, flags)) from error


def _demonstrating(app: "typer.Typer") -> None:
    from edgecache.commands.options import (
        DemoPort,
        InRegions,
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
    def demo(port: DemoPort = 8080, voice: SpokenBy = Speaker.AUTO, world: InRegions = False) -> None:
        """A small world on this machine: two TTS clusters, one near and one far, and an edge in front."""
        if world:
            from edgecache.demo.overseas import Overseas

            raise SystemExit(Overseas(port, voice.value).run())
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
        from edgecache.demo.origin import Origin
        from edgecache.demo.origin import run as run_origin

        try:
            run(run_origin(name, Origin(turned, host, port, api_key)))
        except OSError as error:
            raise Misused(f"can't listen at {host}:{port}: {error.strerror or error}; see --host and --port") from error
