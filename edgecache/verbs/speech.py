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
    from edgecache.commands.options import (
        DEFAULT_URL,
        ApiKey,
        Field,
        Fresh,
        Json,
        Language,
        MaybeText,
        Output,
        Play,
        Stdin,
        Urls,
        Voice,
    )

    @app.command()
    def say(
        text: MaybeText = None,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        output: Output = None,
        url: Urls = DEFAULT_URL,
        api_key: ApiKey = None,
        fresh: Fresh = False,
        stdin: Stdin = False,
        play: Play = False,
        as_json: Json = False,
    ) -> None:
        """Ask an edge for speech: saves or plays the audio, and tells how it came. With -o - it goes to stdout."""
        from dataclasses import asdict

        from edgecache.commands.saying import STDOUT, Spoken, by_distance, speak, speak_typed, wanted
        from edgecache.commands.terminal import Misused

        if (text is None) != stdin:
            raise Misused(
                "say takes TEXT or --stdin, and not both" if stdin else "Missing argument 'TEXT' (or --stdin)"
            )
        if stdin and fresh:
            raise Misused("--fresh is for TEXT: what is typed is spoken sentence by sentence")
        asked = Spoken(wanted(text or "", voice, language, field or []), output, fresh, play)
        edges = by_distance(url)
        stream = sys.stderr if output == STDOUT else sys.stdout
        if stdin:
            typed = speak_typed(edges, api_key, asked)
            print(json.dumps(typed.told()) if as_json else typed.line(), file=stream)
            return
        report = speak(edges, api_key, asked)
        print(json.dumps(asdict(report)) if as_json else report.line(stream), file=stream)
