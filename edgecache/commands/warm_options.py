"""Arguments and options of `warm`, `export` and `import`, as typer reads them. It does not know what any is for."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """How a file of texts is written."""

    TXT = "txt"
    CSV = "csv"
    JSONL = "jsonl"


File = Annotated[
    str, typer.Argument(metavar="FILE", help="Texts: .txt (one a line), .csv (with a header), .jsonl; -: stdin.")
]
Voices = Annotated[list[str] | None, typer.Option("--voice", "-v", help="A voice; again for another one.")]
Formats = Annotated[list[str] | None, typer.Option("--format", "-f", help="A format; again for another one.")]
SampleRates = Annotated[list[int] | None, typer.Option("--sample-rate", help="Hz; again for another one.")]
Languages = Annotated[list[str] | None, typer.Option("--language", "-l", help="A language; again for another one.")]
Written = Annotated[Kind | None, typer.Option("--kind", help="How FILE is written; else its name says.")]
PerSecond = Annotated[float | None, typer.Option("--rate", min=0.01, help="Requests a second, at most.")]
AtOnce = Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Requests at a time, at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only look what is there; nothing is made.")]
StateFile = Annotated[
    Path | None,
    typer.Option("--state", help="What was done, to go on after an interruption. FILE.warm, if none is named."),
]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever was done.")]
RetryFile = Annotated[
    Path | None, typer.Option("--retry-file", help="What failed, with reasons, as a file for `warm`.")
]
ExportFile = Annotated[str, typer.Argument(metavar="FILE", help="Where they go; -: stdout.")]
ImportFile = Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; -: stdin.")]
OfVoice = Annotated[str | None, typer.Option("--voice", "-v", help="Only those in this voice.")]
OfLanguage = Annotated[str | None, typer.Option("--language", "-l", help="Only those in this language.")]
FromRedis = Annotated[
    bool, typer.Option("--redis", help="What is in Redis too, searched slowly; else what memory holds.")
]
