"""Commands that make an edge forget: `purge`."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    from edgecache.commands import options
    from edgecache.commands.purge_options import (
        All,
        Cluster,
        CountRedis,
        DryRun,
        Erase,
        Key,
        Language,
        Namespace,
        Soft,
        Tag,
        Text,
        Voice,
        Yes,
    )

    @app.command()
    def purge(
        key: Key = None,
        text: Text = None,
        voice: Voice = None,
        language: Language = None,
        field: options.Field = None,
        namespace: Namespace = None,
        cluster: Cluster = None,
        tag: Tag = None,
        everything: All = False,
        soft: Soft = False,
        dry_run: DryRun = False,
        count_redis: CountRedis = False,
        erase: Erase = False,
        yes: Yes = False,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """Have an edge forget recordings, in all its workers and its Redis. Exit 4: not everywhere yet."""
        from edgecache.commands import purging
        from edgecache.commands.asking import Target

        asked = purging.Asked(
            key or (), text, voice, language, field or (), namespace, cluster, tag or (), everything=everything
        )
        how = purging.How(soft, dry_run, count_redis, yes, erase)
        told = purging.purge(Target.admin(admin, token_file), asked, how)
        raise SystemExit(purging.show(told, sys.stdout, as_json=as_json))
