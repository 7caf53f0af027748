"""Arguments and options that commands take, as typer reads them.

Keeps the rule that an option that several commands have is one. Importing it loads typer, so only a command that runs
does; it does not know what any option is for.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_ADMIN = "http://127.0.0.1:9901"


class Speaker(StrEnum):
    """Voices of the demo clusters. auto: tone where espeak-ng is missing."""

    AUTO = "auto"
    ESPEAK_NG = "espeak-ng"
    TONE = "tone"


class Shell(StrEnum):
    """Shells that commands can be completed in."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


class Staffing(StrEnum):
    """What can be done with workers."""

    REPLACE = "replace"


WorkersCall = Annotated[
    Staffing | None, typer.Argument(metavar="[replace]", help="Start new ones, and let the old ones finish.")
]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="EDGECACHE_CONFIG", help="The YAML configuration.")
]
Url = Annotated[str, typer.Option("--url", envvar="EDGECACHE_URL", help="Where the edge listens.")]
Admin = Annotated[str, typer.Option("--admin", envvar="EDGECACHE_ADMIN_URL", help="Where its admin listens.")]
AdminTokenFile = Annotated[
    Path | None,
    typer.Option("--admin-token-file", envvar="EDGECACHE_ADMIN_TOKEN_FILE", help="Holds its admin token, if it asks."),
]
ApiKey = Annotated[str | None, typer.Option("--api-key", envvar="EDGECACHE_API_KEY", help="Your API key.")]
ApiKeyMeant = Annotated[
    str | None,
    typer.Option("--api-key", envvar="EDGECACHE_API_KEY", help="The API key whose recordings are meant."),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Text = Annotated[str, typer.Argument(help="What is to be spoken.")]
MaybeText = Annotated[str | None, typer.Argument(metavar="TEXT", help="What is to be spoken.")]
Urls = Annotated[
    str,
    typer.Option(
        "--url", envvar="EDGECACHE_URL", help="Where edges listen, with commas between: the nearest is asked."
    ),
]
Stdin = Annotated[bool, typer.Option("--stdin", help="Speak stdin, sentence by sentence, as it is typed or piped.")]
Play = Annotated[bool, typer.Option("--play", help="Play it, as it comes, with the player that is installed.")]
Voice = Annotated[str | None, typer.Option("--voice", "-v", help="The voice: voice_id.")]
Language = Annotated[str | None, typer.Option("--language", "-l", help="The language, as in de or pt-BR.")]
Field = Annotated[
    list[str] | None, typer.Option("--field", metavar="NAME=VALUE", help="Any other field (JSON, else text).")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where the audio goes; say.wav or the like; -: stdout.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="A new take, which replaces the recording.")]
Namespace = Annotated[str | None, typer.Option(help="Whose recordings; those of an API key are in key-NAME.")]

Listen = Annotated[
    str | None, typer.Option("--listen", metavar="HOST:PORT", help="Where clients are served, whatever is configured.")
]
ListenAdmin = Annotated[
    str | None, typer.Option("--admin", metavar="HOST:PORT", help="Where admin calls are, whatever is configured.")
]
Probe = Annotated[bool, typer.Option("--probe", help="Ask Redis and every cluster too.")]
Strict = Annotated[bool, typer.Option("--strict", help="Warnings fail too.")]
WithOrigin = Annotated[bool, typer.Option("--origin", help="Say where each value came from.")]
ShowVersion = Annotated[bool, typer.Option("--version", help="Print the version.")]

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Look again every second, until Ctrl-C.")]
Once = Annotated[bool, typer.Option("--once", help="Look once, and stop.")]
Every = Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")]
CheckSlo = Annotated[bool, typer.Option("--check", help="Exit 1 if any objective is at warning or critical.")]
DrainCluster = Annotated[
    str | None, typer.Option("--drain", metavar="CLUSTER", help="Give it no new requests; what is under way ends.")
]
ResumeCluster = Annotated[str | None, typer.Option("--resume", metavar="CLUSTER", help="Give it requests again.")]

Undo = Annotated[bool, typer.Option("--undo", help="Clients may come again.")]
Stop = Annotated[
    bool, typer.Option("--stop", help="Stop the daemon, as SIGTERM does: what is under way ends in its time.")
]
KeyOrNone = Annotated[
    str | None, typer.Argument(metavar="KEY", help="64 hex digits, as in `Content-Location` of a hit.")
]
TextOf = Annotated[str | None, typer.Option("--text", help="In place of KEY: what was asked for.")]
ShowText = Annotated[bool, typer.Option("--show-text", help="Tell what is said, too.")]

SpokenBy = Annotated[Speaker, typer.Option("--voice", help="Who speaks. auto: tone where espeak-ng is missing.")]
DemoPort = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="The edge's port; another is taken if it is in use. 0: any.")
]
InRegions = Annotated[
    bool,
    typer.Option(
        "--world",
        help="An ocean between: you in Sydney, an edge 20 ms away, TTS in US-East. As root with real packets.",
    ),
]
OriginName = Annotated[str, typer.Option("--name", help="What it calls itself.")]
OriginHost = Annotated[str, typer.Option("--host", help="Address.")]
OriginPort = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any.")]
OriginKey = Annotated[str | None, typer.Option("--api-key", help="What clients must send.")]
TurnedKnob = Annotated[list[str] | None, typer.Option("--knob", metavar="NAME=VALUE", help="Turn one; see --knobs.")]
ListKnobs = Annotated[bool, typer.Option("--knobs", help="List the knobs and stop.")]

KeyName = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; appears in logs.")]
Shared = Annotated[str | None, typer.Option("--namespace", help="Share recordings with all keys of this namespace.")]
WhichShell = Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh, fish or powershell.")]
