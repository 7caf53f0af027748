"""What the system says of an address that can't be listened at, and what the operator can do about it."""

import errno

from edgecache.errors import SettingsError


class address_errors:  # noqa: N801 - reads as a function
    """Turns what the system says of an address into what the operator can do."""

    def __init__(self, where: str, host: str, port: int) -> None:
        self._told = where, host, port

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        where, host, port = self._told
        reasons = {
            errno.EADDRINUSE: f"is already in use; set {where}.port to another, or stop who has it (ss -ltnp)",
            errno.EACCES: "is not allowed; ports below 1024 need CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: f"is not an address of this machine; set {where}.host to one that is",
        }
        reason = reasons.get(error.errno or 0, f"can't be listened at: {error.strerror or error}; see {where}.host")
        raise SettingsError(f"{where}: {host}:{port} {reason}") from error
