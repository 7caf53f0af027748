"""The command line. Each command imports what it needs when it runs, so that `--version` and `--help` are quick.

stdout is for data, stderr for talk. Exit codes: 0 fine, 1 failed, 2 usage or configuration, 3 no edge answers, 4 done in
part, 130 interrupted.
"""

import io
import os
import sys
from typing import TYPE_CHECKING

from edgecache.verbs.running import PROGRAM, spelled_version

if TYPE_CHECKING:
    import typer

_STDERR = 2
EXAMPLES = """Examples:

  edgecache demo
  edgecache say 'Hello edge' -o hello.wav
  edgecache check --probe -c edge.yaml
"""


def main() -> None:
    """The `edgecache` program."""
    _hold_standard_descriptors()
    if sys.argv[1:] in (["--version"], ["version"]):
        print(spelled_version())
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    code = _ended()
    raise SystemExit(code if _flushed() else code or 1)


def _hold_standard_descriptors() -> None:
    """Those that who started us has closed (`>&-`) are the null device: else sockets would get their numbers.

    libuv aborts where it closes one of those, and what is printed would go to a client.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stderr is None:
        sys.stderr = open(_STDERR, "w", closefd=False)  # noqa: SIM115 - as long as the process


def _ended() -> int:
    """Runs the command that was typed: its exit code."""
    from edgecache.commands.terminal import FAILED, FULL, INTERRUPTED, USAGE, Ended, complain
    from edgecache.errors import SettingsError

    try:
        _program()(prog_name=PROGRAM)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED if ended.code else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except SettingsError as error:
        complain(str(error))
        return USAGE
    except Ended as error:
        complain(str(error))
        return error.code
    except OSError as error:
        if error.errno not in FULL:
            raise
        complain(f"stdout can't be written: {error.strerror}")
        return FAILED
    return 0


def _flushed() -> bool:
    """Whether all that was printed could be; a reader that left (`| head -1`) needs not be told."""
    if sys.stdout is None:  # closed by who started us: `>&-`
        return True
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: stdout can't be written: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes once more when it ends, and complains
        return False
    return True


def _program() -> "typer.Typer":
    import typer

    from edgecache.verbs import describing, looking, measuring, purging, serving, speech, stocking

    app = typer.Typer(
        name=PROGRAM,
        help="An edge cache for text-to-speech: hears a request once and speaks it for ever after.",
        epilog=EXAMPLES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    for each in (serving, speech, stocking, purging, looking, measuring, describing):
        each.register(app)
    return app
