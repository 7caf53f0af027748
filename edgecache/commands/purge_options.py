"""Options of `purge`, as typer reads them. It does not know what any is for."""

from typing import Annotated

import typer

Key = Annotated[list[str] | None, typer.Option("--key", help="A recording: the end of its Content-Location.")]
Text = Annotated[
    str | None, typer.Option("--text", "-t", help="What was spoken, with these --voice, --language, --field.")
]
Voice = Annotated[
    str | None, typer.Option("--voice", "-v", help="Everything of this voice; with --text: of that text.")
]
Language = Annotated[str | None, typer.Option("--language", "-l", help="Everything of this language; or as --voice.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", help="Everything of this namespace; with --text: whose it is.")
]
Cluster = Annotated[str | None, typer.Option("--cluster", help="Everything that this cluster made.")]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="Everything that a cluster put this tag on.")]
All = Annotated[bool, typer.Option("--all", help="Everything; needs --yes.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do purge everything.")]
Soft = Annotated[
    bool, typer.Option("--soft", help="Stale, not gone: asked for anew, and served if no cluster answers.")
]
CountRedis = Annotated[
    bool, typer.Option("--count-redis", help="With --dry-run: look at all that Redis holds, for at most 20 seconds.")
]
Erase = Annotated[
    bool,
    typer.Option("--erase", help="Delete out of Redis, too, the bytes of all that is purged; looks at all it holds."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Only count what it would be about.")]
