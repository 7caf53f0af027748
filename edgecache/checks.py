"""What values must be to each other, or to the world; `loading` asks for it once they are read.

Keeps the rule that a mistake names its place and what to do, and that one mistake is told once.
"""

import ipaddress
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from edgecache.clusters.addresses import networks
from edgecache.clusters.cluster import Cluster
from edgecache.configuration import document, writing
from edgecache.configuration.declaration import declare
from edgecache.configuration.reading import Reading
from edgecache.configuration.report import Findings, shown
from edgecache.configuration.scalars import did_you_mean
from edgecache.delivery.auth import read_keys
from edgecache.errors import SettingsError
from edgecache.ops import tracing
from edgecache.ops.access import is_token
from edgecache.settings import Settings

if TYPE_CHECKING:
    from edgecache.ops.objectives import ShareGoal, TimeGoal

DIALECTS = ("speeko",)
#: Names stand in metrics, logs and `Cache-Status`, so they are tokens.
_TOKEN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN_HINT = "use letters, digits, `.`, `_` and `-`, at most 64"
_ADMIN_REMEDY = (
    "add `admin: {token_file: admin-token.txt}` (`openssl rand -hex 32 > admin-token.txt`), or listen on 127.0.0.1"
)
_TOKEN_REMEDY = "`openssl rand -hex 32 > admin-token.txt` makes one"
_KEYS_REMEDY = "add `auth: {keys_file: keys.txt}` (`edgecache keys new NAME` makes its lines), or listen on 127.0.0.1"


class Checks:
    """What values must be to each other, or to the world. A value that is already known to be wrong is left alone."""

    def __init__(self, settings: Settings, reading: Reading, findings: Findings) -> None:
        self._settings = settings
        self._reading = reading
        self._findings = findings

    def all(self) -> None:
        """Every check."""
        self._names()
        for index, cluster in enumerate(self._settings.clusters):
            self._cluster(f"clusters.{index}", cluster)
        self._routes()
        self._voices()
        self._redis()
        self._keys_file()
        self._listeners()
        self._admin()
        self._orders()
        if not self._settings.probing.path.startswith("/"):
            self._wrong("probing.path", 'must begin with "/"')
        self._networks()
        lacks = tracing.missing(self._settings.tracing)
        if lacks:
            self._wrong("tracing.exporter", lacks, tracing.REMEDY)

    def _wrong(self, key: str, message: str, hint: str | None = None) -> None:
        if self._findings.sound(key):
            self._findings.add(self._reading.place(key), key, message, hint)

    def _names(self) -> None:
        named = {"node.name": self._settings.node.name}
        named |= {f"clusters.{index}.name": cluster.name for index, cluster in enumerate(self._settings.clusters)}
        for key, name in named.items():
            if not _TOKEN.fullmatch(name):
                self._wrong(key, f"{shown(name)} can't be a name", _TOKEN_HINT)
        first: dict[str, str] = {}
        for index, cluster in enumerate(self._settings.clusters):
            key = f"clusters.{index}.name"
            if cluster.name in first:
                place = self._reading.place(first[cluster.name])
                self._wrong(key, f"{shown(cluster.name)} is another cluster's name already", f"that one: {place}")
            first.setdefault(cluster.name, key)

    def _cluster(self, key: str, cluster: Cluster) -> None:
        urls = {f"{key}.urls.{index}": url for index, url in enumerate(cluster.urls)}
        if self._findings.sound(f"{key}.url", f"{key}.urls"):
            if cluster.url is None and not urls:
                self._wrong(key, "has no url", 'add `url: "http://host:port"`, or several as `urls`')
            if cluster.url is not None and urls:
                self._wrong(f"{key}.urls", "url is given too", "give `url` or `urls`, not both")
        if cluster.url is not None:
            urls[f"{key}.url"] = cluster.url
        for place, url in urls.items():
            wrong = _wrong_with_url(url)
            if wrong:
                self._wrong(place, wrong, "write it as http://host:port or https://host")
        for count, url in enumerate(cluster.urls):
            if url in cluster.urls[:count]:
                self._wrong(f"{key}.urls.{count}", "is in the list twice", "delete one of them")
        if cluster.dialect not in DIALECTS:
            hint = did_you_mean(cluster.dialect, DIALECTS) or f"known: {', '.join(DIALECTS)}"
            self._wrong(f"{key}.dialect", f"{shown(cluster.dialect)} is no dialect of this version", hint)
        if cluster.api_key is not None and not (cluster.api_key.isascii() and cluster.api_key.isprintable()):
            self._wrong(f"{key}.api_key", "holds a character that no HTTP header can carry")

    def _routes(self) -> None:
        groups = {group for cluster in self._settings.clusters for group in cluster.groups}
        names: set[str] = set()
        for index, route in enumerate(self._settings.routes):
            key = f"routes.{index}"
            if not _TOKEN.fullmatch(route.name):
                self._wrong(f"{key}.name", f"{shown(route.name)} can't be a name", _TOKEN_HINT)
            if route.name in names:
                self._wrong(f"{key}.name", f"{shown(route.name)} is another route's name already", "give it another")
            names.add(route.name)
            if not route.groups:
                self._wrong(f"{key}.groups", "is empty, so that nothing could go anywhere", "name groups of clusters")
            for count, group in enumerate(route.groups):
                if group not in groups:
                    hint = did_you_mean(group, tuple(groups)) or "add it to the `groups` of a cluster"
                    self._wrong(f"{key}.groups.{count}", f"no cluster is in the group {shown(group)}", hint)

    def _voices(self) -> None:
        """Each voice once, and at a revision that has a name."""
        seen: set[str] = set()
        for index, each in enumerate(self._settings.cache.key.voice_revisions):
            key = f"cache.key.voice_revisions.{index}"
            if each.voice in seen:
                self._wrong(f"{key}.voice", f"the voice {each.voice!r} has a revision already")
            if not each.revision:
                self._wrong(f"{key}.revision", "is empty; leave the voice out if it was never made anew")
            seen.add(each.voice)

    def _redis(self) -> None:
        access = self._settings.cache.redis
        if access.url is None or access.url == "off":
            return
        parts = _split(access.url)
        known = ("redis", "rediss", "unix")
        if parts is None or parts.scheme not in known:
            self._wrong(
                "cache.redis.url", f"{shown(access.url)} is no Redis URL", "redis://, rediss://, unix:// or off"
            )
        elif parts.scheme == "unix" and not parts.path.startswith("/"):
            self._wrong("cache.redis.url", "has no path", "write it as unix:///run/redis/redis.sock")
        elif parts.scheme != "unix" and not parts.hostname:
            self._wrong("cache.redis.url", "has no host", "write it as redis://host:6379/0")

    def _keys_file(self) -> None:
        auth = self._settings.auth
        if auth is None or auth.keys_file is None or not self._findings.sound("auth.keys_file"):
            return
        place = self._reading.place("auth.keys_file")
        try:
            with open(auth.keys_file, "rb"):
                pass
            read_keys(Path(auth.keys_file))
        except OSError as error:
            hint = "`edgecache keys new NAME` makes its lines"
            self._findings.add(place, "auth.keys_file", f"{shown(auth.keys_file, 200)} {document.failure(error)}", hint)
        except SettingsError as error:
            for line in str(error).splitlines():
                self._findings.add(place, "auth.keys_file", line)

    def _listeners(self) -> None:
        settings = self._settings
        open_to_all = settings.auth is None or settings.auth.keys_file is None
        if open_to_all and not is_loopback(settings.listen.host) and self._findings.sound("auth.keys_file"):
            host = shown(settings.listen.host)
            self._wrong("listen.host", f"{host} is not loopback, and anyone could ask without a key", _KEYS_REMEDY)
        if settings.listen.port and (settings.listen.host, settings.listen.port) == (
            settings.admin.host,
            settings.admin.port,
        ):
            key = self._written_of("admin.port", "listen.port")
            self._wrong(key, "listen and admin have the same address", "give one of them another port")

    def _admin(self) -> None:
        admin = self._settings.admin
        if admin.token is not None and not is_token(admin.token):
            self._wrong("admin.token", "can't be a token: one word of printable ASCII", _TOKEN_REMEDY)
        if admin.token is None and not is_loopback(admin.host) and self._findings.sound("admin.token"):
            host = shown(admin.host)
            self._wrong(
                "admin.host", f"{host} is not loopback, and the admin listener asks for no token", _ADMIN_REMEDY
            )

    def _networks(self) -> None:
        for index, written in enumerate(self._settings.pool.allow_networks):
            try:
                networks((written,))
            except ValueError:
                remedy = "write it as 127.0.0.0/8, ::1/128 or a single address"
                self._wrong(f"pool.allow_networks.{index}", f"{shown(written)} is no network", remedy)

    def _orders(self) -> None:
        """Pairs of which the first may not be more than the second."""
        settings = self._settings
        pairs: tuple[tuple[str, float, str, float], ...] = (
            ("timeouts.connect", settings.timeouts.connect_s, "timeouts.total", settings.timeouts.total_s),
            ("timeouts.first_byte", settings.timeouts.first_byte_s, "timeouts.total", settings.timeouts.total_s),
            ("health.ejected", settings.health.ejected_s, "health.ejected_max", settings.health.ejected_max_s),
            (
                "fills.max_rendering",
                settings.fills.max_rendering_bytes,
                "fills.max_held",
                settings.fills.max_held_bytes,
            ),
            ("fills.shed.lag_later", settings.fills.shed.lag_later_s, "fills.shed.lag", settings.fills.shed.lag_s),
            ("fills.shed.held_later", settings.fills.shed.held_later, "fills.shed.held", settings.fills.shed.held),
            *self._thresholds(),
        )
        if settings.fills.deadline_s is not None:
            # Else a cluster that says nothing would never be found out by those who wait for it.
            deadline_s = settings.fills.deadline_s
            pairs += (("timeouts.first_byte", settings.timeouts.first_byte_s, "fills.deadline", deadline_s),)
        said = {key: spelled for key, spelled, _ in writing.rows(declare(Settings), settings, {})}
        for less, low, more, high in pairs:
            if low > high and self._findings.sound(less, more):
                key = self._written_of(more, less)
                told = f"{less} ({said[less]}) must not be more than {more} ({said[more]})"
                self._wrong(key, told, "change one of them")

    def _thresholds(self) -> Iterator[tuple[str, float, str, float]]:
        """An objective's target, its warning, and where it is critical."""
        promises, names = self._settings.slo, ("target", "warning", "critical")
        for name in ("first_byte", "jitter", "underruns", "startup"):
            goal: TimeGoal | ShareGoal = getattr(promises, name)
            for (less, low), (more, high) in pairwise(zip(names, goal.steps, strict=True)):
                yield f"slo.{name}.{less}", low, f"slo.{name}.{more}", high

    def _written_of(self, *keys: str) -> str:
        """The first of these keys that the operator wrote."""
        return next((key for key in keys if self._reading.given(key)), keys[0])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str) -> SplitResult | None:
    """The URL's parts; None: it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port, parts.hostname  # read here because it is here that they are checked
    except ValueError:
        return None
    return parts


def _wrong_with_url(url: str) -> str | None:
    """Why a cluster can't be asked there."""
    parts = _split(url)
    if parts is None or any(character.isspace() for character in url):
        return f"{shown(url)} is no URL"
    if parts.scheme not in ("http", "https"):
        return f"{shown(url)} is neither http:// nor https://"
    if not parts.hostname:
        return f"{shown(url)} has no host"
    if "@" in parts.netloc:
        return "has a user name or a password in it; a cluster is asked with `api_key`"
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        return f"{shown(url)} has a query or a fragment"
    return None
