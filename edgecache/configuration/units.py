"""Durations and sizes as people write them: "24h", "1h30m", "20ms", "512MiB", "10MB".

Keeps the rule that what is written back reads as the same value: `duration(spell_duration(x)) == x`, to the microsecond.
It does not know where the text came from.
"""

import re
from fractions import Fraction

#: Microseconds, from the longest unit to the shortest.
_DURATIONS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_SIZES = {
    "B": 1,
    **{f"{prefix}iB": 1 << (10 * power) for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", 1)},
    "KB": 1000,
}
#: A hundred years: longer ones are mistakes, and overflow what other systems count in.
_MAX_DURATION_US = 36_500 * _DURATIONS["d"]
#: An exbibyte.
_MAX_SIZE_BYTES = 1 << 60
_AMOUNT = r"[0-9]{1,19}(?:\.[0-9]{1,9})?"
#: Also for the JSON Schema, so without Python's own notation.
DURATION_PATTERN = "^(?=.)" + "".join(f"({_AMOUNT}{unit})?" for unit in _DURATIONS) + "$"
SIZE_PATTERN = f"^{_AMOUNT}({'|'.join(_SIZES)})$"
_DURATION = re.compile(DURATION_PATTERN, re.ASCII)
_SIZE = re.compile(f"(?P<amount>{_AMOUNT})(?P<unit>{'|'.join(_SIZES)})", re.ASCII)
_PART = re.compile(f"({_AMOUNT})({'|'.join(sorted(_DURATIONS, key=len, reverse=True))})")


def duration(text: str) -> float:
    """Seconds. ValueError, with words for an operator: not a duration."""
    if text == "0":
        return 0.0
    if text.endswith("\n") or _DURATION.match(text) is None:
        raise ValueError("is not a duration")
    micros = sum((Fraction(amount) * _DURATIONS[unit] for amount, unit in _PART.findall(text)), Fraction(0))
    if micros.denominator != 1:
        raise ValueError("is finer than a microsecond")
    if micros > _MAX_DURATION_US:
        raise ValueError("is longer than a hundred years")
    return int(micros) / 1_000_000


def size(text: str) -> int:
    """Bytes. ValueError, with words for an operator: not a size."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("is not a size")
    count = Fraction(match["amount"]) * _SIZES[match["unit"]]
    if count.denominator != 1:
        raise ValueError("is not a whole number of bytes")
    if count > _MAX_SIZE_BYTES:
        raise ValueError("is larger than an exbibyte")
    return int(count)


def spell_duration(seconds: float) -> str:
    """The shortest usual way to write it: whole days from two on, else hours, minutes and seconds."""
    left = round(Fraction(seconds) * 1_000_000)
    if left == 0:
        return "0s"
    day = _DURATIONS["d"]
    if left >= 2 * day and left % day == 0:
        return f"{left // day}d"
    parts = []
    for unit in ("h", "m"):
        count, left = divmod(left, _DURATIONS[unit])
        parts += [f"{count}{unit}"] if count else []
    for unit in ("s", "ms", "us"):
        if left >= _DURATIONS[unit]:
            parts.append(_decimal(left, _DURATIONS[unit]) + unit)
            break
    return "".join(parts)


def spell_size(count: int) -> str:
    """The shortest way to write it, in binary units where that is as short."""
    if count == 0:
        return "0"
    spelled = [f"{count // unit}{name}" for name, unit in _SIZES.items() if count % unit == 0 and name != "KB"]
    return min(reversed(spelled), key=lambda text: (len(text), "i" not in text))


def _decimal(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0") if rest else str(whole)
