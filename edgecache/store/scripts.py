"""What is asked of Redis for leases, tails and erasing, as bytes. Pure.

Scripts of one key each, so that they may lie anywhere in a cluster; those for leases and tails reply with a string or
nothing, which is all that a pipeline reads. EVAL and not EVALSHA: a Redis that was started again knows no script.
"""

TAKE = b"if redis.call('SET',KEYS[1],ARGV[1],'NX','PX',ARGV[2]) then return false end return redis.call('GET',KEYS[1])"
_OURS = b"if redis.call('GET',KEYS[1])==ARGV[1] then redis.call(%b) return ARGV[1] end return false"
RENEW = _OURS % b"'PEXPIRE',KEYS[1],ARGV[2]"
GIVE_BACK = _OURS % b"'DEL',KEYS[1]"
#: What begins with these bytes; not what was written in its place since it was looked at.
ERASE = b"if redis.call('GETRANGE',KEYS[1],0,ARGV[2])==ARGV[1] then return redis.call('UNLINK',KEYS[1]) end return 0"
#: One entry under its number, so that it can't be there twice, nor after a later one.
ENTRY = b"redis.call('XADD',KEYS[1],ARGV[1],'e',ARGV[2]) redis.call('PEXPIRE',KEYS[1],ARGV[3]) return false"
CALLS = (
    b"redis.call('XADD',KEYS[1],'MAXLEN','~',ARGV[2],'*','e',ARGV[1]) "
    b"redis.call('PEXPIRE',KEYS[1],ARGV[3]) return false"
)


def command(*words: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def script(code: bytes, key: str, *arguments: bytes) -> bytes:
    """A script of one key as a command."""
    return command(b"EVAL", code, b"1", key.encode(), *arguments)
