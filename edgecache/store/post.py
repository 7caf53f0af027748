"""One connection to Redis that blocks, for all that other processes tell this one: its mailbox and the tails it follows.

Keeps rules 6 and 7: no other connection ever waits for it; when it is lost, so is every tail of which nothing was heard,
for there another way is open; the others are read on where they were. A tail that is not read is not fetched either. It does
not know what is told.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from edgecache.fill.following import Lost
from edgecache.store.connections import Address, Argument, Connections, Refusal, Reply, Unanswered
from edgecache.store.tiers import RedisAccess

#: It looks up from waiting once in a while; a Redis that hangs is noticed then, if by nothing else.
BLOCK_S = 1.0
#: How soon a lost connection is made again.
AGAIN_S = 0.2
#: Of a tail of which so much is unread no more is fetched.
ENOUGH_BYTES = 256 << 10
#: Entries fetched at once from each stream.
COUNT = 8


class Inbox:
    """One stream being followed, from its first entry."""

    def __init__(self, post: "Post", where: str, lasts_s: float, wake: Callable[[], None]) -> None:
        self._post = post
        self._wake = wake
        self.where = where
        self.lasts_s = lasts_s
        self.last = b"0-0"
        self.entries: deque[bytes] = deque()
        self.held_bytes = 0
        self.lost = ""
        self.waits = self._holds_on = False
        self._came = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Inbox {len(self.entries)} entries{', ' * bool(self.lost)}{self.lost}>"

    async def next(self) -> bytes:
        """The next entry. Lost: there will be none."""
        while not self.entries:
            if self.lost:
                raise Lost(self.lost)
            self._came.clear()
            await self._came.wait()
        entry = self.entries.popleft()
        self.held_bytes -= len(entry)
        if self.waits and self.held_bytes < ENOUGH_BYTES:
            self.waits = False
            self._wake()
        return entry

    def hold_on(self) -> None:
        """From now on a lost connection is made again, and only silence is an end."""
        self._holds_on = True

    def disconnected(self, why: str) -> None:
        """The connection that it came over is lost."""
        if not self._holds_on:
            self.lose(why)

    def close(self) -> None:
        """Follows it no more."""
        self._post.forget(self)

    def put(self, entries: list[bytes], last: bytes) -> None:
        """More of it."""
        self.entries.extend(entries)
        self.held_bytes += sum(len(each) for each in entries)
        self.last = last
        self._came.set()

    def lose(self, why: str) -> None:
        """No more of it."""
        self.lost = why
        self._came.set()


class Post:
    """What this process waits for."""

    def __init__(
        self,
        address: Address,
        access: RedisAccess,
        mailbox: str,
        hear: Callable[[bytes], None],
    ) -> None:
        """hear: told what lies in the mailbox."""
        self._connections = Connections(address, 1, access.connect_timeout_s)
        self._access = access
        self._mailbox = mailbox
        self._hear = hear
        self._last = b"0-0"
        self._inboxes: dict[str, Inbox] = {}
        self._closing = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        #: Whether calls would be heard.
        self.well = False

    def __repr__(self) -> str:
        return f"<Post {'well' if self.well else 'not well'}, {len(self)} followed>"

    def __len__(self) -> int:
        return len(self._inboxes)

    def __contains__(self, where: str) -> bool:
        return where in self._inboxes

    def start(self) -> None:
        """Begins to read."""
        self.well = True
        self._reading = asyncio.create_task(self._read(), name="read the post from Redis")

    async def close(self) -> None:
        """Reads no more; whoever follows is told."""
        self.well = False
        self._closing.set()
        await self._connections.close()
        if self._reading is not None:
            await self._reading
        for inbox in self._inboxes.values():
            inbox.lose("this edge is stopping")

    def follow(self, where: str, lasts_s: float, wake: Callable[[], None]) -> Inbox:
        """From its first entry on, whenever that comes. wake: makes the reading look again at what it waits for."""
        inbox = Inbox(self, where, lasts_s, wake)
        if where in self._inboxes:
            inbox.lose("followed already")
        else:
            self._inboxes[where] = inbox
        return inbox

    def forget(self, inbox: Inbox) -> None:
        """See `Inbox.close`."""
        if self._inboxes.get(inbox.where) is inbox:
            del self._inboxes[inbox.where]

    async def _read(self) -> None:
        while not self._closing.is_set():
            try:
                await self._once()
                self.well = not self._closing.is_set()
            except Unanswered as failure:
                self.well = False
                for inbox in self._inboxes.values():
                    inbox.disconnected(str(failure))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), AGAIN_S)
                self._last = b"0-0"  # another Redis may be there, whose time is not that one's

    async def _once(self) -> None:
        wanted = {self._mailbox: self._last}
        for where, inbox in self._inboxes.items():
            inbox.waits = inbox.held_bytes >= ENOUGH_BYTES
            if not inbox.waits:
                wanted[where] = inbox.last
        now = asyncio.get_running_loop().time
        began_s = now()
        try:
            reply = await self._ask(wanted, BLOCK_S)
            if not isinstance(reply, list) and now() - began_s < BLOCK_S / 2:
                raise Unanswered("an odd reply")  # it was to wait
            self._sort(reply)
        except Refusal:  # one of them is no stream: which?
            for where, last in wanted.items():
                try:
                    self._sort(await self._ask({where: last}, None))
                except Refusal as refusal:
                    await self._refused(where, str(refusal))

    async def _ask(self, wanted: dict[str, bytes], block_s: float | None) -> Reply:
        block: tuple[Argument, ...] = () if block_s is None else ("BLOCK", round(1000 * block_s))
        command = ("XREAD", "COUNT", COUNT, *block, "STREAMS", *wanted, *wanted.values())
        return await self._connections.ask(command, (block_s or 0.0) + self._access.write_timeout_s)

    async def _refused(self, where: str, why: str) -> None:
        if where == self._mailbox:
            raise Unanswered(why)
        if where in self._inboxes:
            self._inboxes[where].lose(why)

    def _sort(self, reply: Reply) -> None:
        """Each stream's entries to who waits for them."""
        for where, entries, last in _streams(reply):
            if where == self._mailbox:
                self._last = last
                for each in entries:
                    self._hear(each)
            elif where in self._inboxes:
                self._inboxes[where].put(entries, last)


def _streams(reply: Reply) -> list[tuple[str, list[bytes], bytes]]:
    """What XREAD replied: streams, what is in their entries, and the last one's id. Unanswered: no such reply."""
    try:
        streams = reply if isinstance(reply, list) else []
        return [(stream.decode(), [_value(fields) for _, fields in found], found[-1][0]) for stream, found in streams]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise Unanswered("an odd reply") from error


def _value(fields: list[bytes]) -> bytes:
    """What an entry holds; nothing that could be understood, if it has other fields than ours."""
    return fields[1] if len(fields) == 2 and fields[0] == b"e" else b""
