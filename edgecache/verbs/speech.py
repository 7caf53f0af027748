"""Commands about one utterance: `say`, `explain`."""

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    _speaking(app)


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
