"""Commands that tell what a running edge has measured: `top`, `stats`, `slo`."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    from edgecache.commands import options

    @app.command()
    def top(
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        every: options.Every = 2.0,
        once: options.Once = False,
        as_json: options.Json = False,
    ) -> None:
        """A running edge at a glance, live: rates, hits by tier, first bytes, clusters, what was saved."""
        from edgecache.commands import top
        from edgecache.commands.asking import Target

        target = Target.admin(admin, token_file)
        if once or as_json:
            top.show(top.told(target), sys.stdout, as_json=as_json)
        else:
            top.watch(target, sys.stdout, every)

    @app.command()
    def stats(
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """What a running edge has come to since it began: requests, hits by tier, what was saved, bytes held."""
        from edgecache.commands import standing
        from edgecache.commands.asking import Target

        told = standing.stats(Target.admin(admin, token_file))
        standing.show(told, standing.shown_stats(told), sys.stdout, as_json=as_json)

    @app.command()
    def slo(
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        check: options.CheckSlo = False,
        as_json: options.Json = False,
    ) -> None:
        """How the promises of a running edge stand, by whose they are: edge, cluster or the client's line."""
        from edgecache.commands import slo
        from edgecache.commands.asking import Target

        said = slo.told(Target.admin(admin, token_file))
        slo.show(said, sys.stdout, as_json=as_json)
        if check and not slo.kept(said):
            raise SystemExit(1)
