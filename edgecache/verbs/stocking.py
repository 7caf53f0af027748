"""Commands that fill an edge before anybody asks: `warm`, `export`, `import`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    _warming(app)
    _moving(app)


def _warming(app: "typer.Typer") -> None:
    from edgecache.commands import options
    from edgecache.commands.warm_options import (
        AtOnce,
        DryRun,
        File,
        Formats,
        Languages,
        PerSecond,
        Restart,
        RetryFile,
        SampleRates,
        StateFile,
        Voices,
        Written,
    )

    @app.command()
    def warm(
        file: File,
        voice: Voices = None,
        format_: Formats = None,
        sample_rate: SampleRates = None,
        language: Languages = None,
        written: Written = None,
        rate: PerSecond = None,
        concurrency: AtOnce = 4,
        dry_run: DryRun = False,
        state: StateFile = None,
        restart: Restart = False,
        retry_file: RetryFile = None,
        url: options.Urls = options.DEFAULT_URL,
        api_key: options.ApiKey = None,
        as_json: options.Json = False,
    ) -> None:
        """Have an edge say a file of texts beforehand, behind everyone who waits. Exit 4: done in part."""
        from edgecache.commands import warm_run
        from edgecache.commands.warm_set import Choices
        from edgecache.commands.warming import Plan

        choices = Choices(voice or (), language or (), format_ or (), sample_rate or ())
        plan = Plan(url, api_key, rate, concurrency, dry_run)
        asked = warm_run.Asked(file, plan, choices, written, state, restart, retry_file)
        raise SystemExit(warm_run.warm(asked, as_json=as_json))


def _moving(app: "typer.Typer") -> None:
    from edgecache.commands import options
    from edgecache.commands.warm_options import ExportFile, FromRedis, ImportFile, OfLanguage, OfVoice

    @app.command()
    def export(
        file: ExportFile,
        namespace: options.Namespace = None,
        voice: OfVoice = None,
        language: OfLanguage = None,
        redis: FromRedis = False,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """Write an edge's recordings to a file, for another region's. Exit 4: not all of them."""
        from edgecache.commands import moving
        from edgecache.commands.asking import Target

        only = {"namespace": namespace, "voice": voice, "language": language}
        target = Target.admin(admin, token_file)
        raise SystemExit(moving.export(target, file, only, redis=redis, as_json=as_json))

    @app.command("import")
    def _(
        file: ImportFile,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """Take in what `export` wrote; each recording is checked. Exit 4: not all of it could be taken."""
        from edgecache.commands import moving
        from edgecache.commands.asking import Target

        raise SystemExit(moving.import_(Target.admin(admin, token_file), file, as_json=as_json))
