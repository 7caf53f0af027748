"""Commands that ask a running edge: `status`, `explain`, `inspect`, `healthcheck`, `drain`, `clusters`, `workers`."""

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def register(app: "typer.Typer") -> None:
    """Adds them."""
    _looking(app)
    _standing(app)
    _inspecting(app)
    _draining(app)
    _choosing(app)
    _staffing(app)


def _looking(app: "typer.Typer") -> None:
    from edgecache.commands.options import (
        DEFAULT_ADMIN,
        Admin,
        AdminTokenFile,
        ApiKeyMeant,
        Field,
        Json,
        Language,
        Namespace,
        Text,
        Voice,
    )

    @app.command()
    def explain(
        text: Text,
        voice: Voice = None,
        language: Language = None,
        field: Field = None,
        namespace: Namespace = None,
        api_key: ApiKeyMeant = None,
        admin: Admin = DEFAULT_ADMIN,
        token_file: AdminTokenFile = None,
        as_json: Json = False,
    ) -> None:
        """Tell what a request would get and why: key, canonical utterance, tier, lifetime. Changes nothing."""
        from edgecache.commands.asking import Target, explained, explanation
        from edgecache.commands.saying import wanted

        body = wanted(text, voice, language, field or [])
        told = explanation(Target.admin(admin, token_file, api_key=api_key), body, namespace)
        print(json.dumps(told) if as_json else explained(told))

    @app.command()
    def healthcheck(admin: Admin = DEFAULT_ADMIN, as_json: Json = False) -> None:
        """Exit 0 if the edge is ready, 1 if it is not, 3 if nobody answers; for containers."""
        from edgecache.commands.asking import Target

        status, told = Target(admin, timeout_s=5.0).ask_admin("GET", "/readyz")
        failing = [f"{name}: {why}" for name, why in told.get("checks", {}).items() if why]
        words = "ready" if status == 200 else "; ".join(["not ready", *failing])
        print(json.dumps(told) if as_json else words)
        raise SystemExit(0 if status == 200 else 1)


def _standing(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command()
    def status(
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """How a running edge stands: ready or why not, mode, workers, tiers, clusters, fills."""
        from edgecache.commands import standing
        from edgecache.commands.asking import Target

        told = standing.status(Target.admin(admin, token_file))
        standing.show(told, standing.shown_status(told), sys.stdout, as_json=as_json)


def _inspecting(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command()
    def inspect(
        key: options.KeyOrNone = None,
        text: options.TextOf = None,
        voice: options.Voice = None,
        language: options.Language = None,
        field: options.Field = None,
        namespace: options.Namespace = None,
        api_key: options.ApiKeyMeant = None,
        show_text: options.ShowText = False,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """The facts of one recording, by its key or by what was asked for; what it says only with --show-text."""
        from edgecache.commands import standing
        from edgecache.commands.asking import Target, key_of
        from edgecache.commands.saying import wanted
        from edgecache.commands.terminal import Misused

        if (key is None) == (text is None):
            raise Misused("inspect takes KEY or --text, and not both")
        target = Target.admin(admin, token_file, api_key=api_key)
        if text is not None:
            key = key_of(target, wanted(text, voice, language, field or []), namespace)
        told = standing.inspect(target, str(key), text=show_text)
        standing.show(told, standing.shown_recording(told), sys.stdout, as_json=as_json)


def _draining(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command()
    def drain(
        undo: options.Undo = False,
        stop: options.Stop = False,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """Send clients elsewhere: /readyz says 503, and whoever comes is served as before. --undo, or --stop."""
        from edgecache.commands.asking import Target
        from edgecache.commands.terminal import Misused

        if undo and stop:
            raise Misused("--undo and --stop do not go together")
        target = Target.admin(admin, token_file)
        told = target.ask_admin("POST", "/stop" if stop else "/resume" if undo else "/drain", b"")[1]
        said = (
            "The edge is stopping."
            if stop
            else "Clients may come again."
            if undo
            else "Not ready from now on; everything is served as before. `edgecache drain --undo` ends it."
        )
        print(json.dumps(told) if as_json else said)


def _choosing(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command("clusters")
    def _(
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        watch: options.Watch = False,
        drain: options.DrainCluster = None,
        resume: options.ResumeCluster = None,
        as_json: options.Json = False,
    ) -> None:
        """The clusters of a running edge: how far and how well each is, which is asked, and why."""
        from edgecache.commands import clusters
        from edgecache.commands.asking import Target
        from edgecache.commands.terminal import Misused

        target = Target.admin(admin, token_file)
        if sum((watch, drain is not None, resume is not None)) > 1:
            raise Misused("--watch, --drain and --resume do not go together")
        for name, drained in ((drain, True), (resume, False)):
            if name is not None:
                clusters.drain(target, name, drained=drained)
        if watch:
            clusters.watch(target, sys.stdout)
        clusters.show(clusters.told(target), sys.stdout, as_json=as_json)


def _staffing(app: "typer.Typer") -> None:
    from edgecache.commands import options

    @app.command("workers")
    def _(
        call: options.WorkersCall = None,
        admin: options.Admin = options.DEFAULT_ADMIN,
        token_file: options.AdminTokenFile = None,
        as_json: options.Json = False,
    ) -> None:
        """The processes of a running edge. replace: start new ones and let the old ones finish, nothing dropped."""
        from edgecache.commands.asking import Target

        target = Target.admin(admin, token_file)
        if call is not None:
            target.ask_admin("POST", "/workers/replace", b"")
            print("{}" if as_json else "The workers are being replaced, one by one.")
            return
        told = target.ask_admin("GET", "/workers")[1]
        if as_json:
            print(json.dumps(told))
            return
        for each in told["workers"]:
            up = f"up {each['uptime_s']} s" if "uptime_s" in each else ""
            print(
                f"{each['worker']:>3}  pid {each['pid']:<8} {each['state']:<9} restarts {each['restarts']}  {up}".rstrip()
            )
