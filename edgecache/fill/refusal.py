"""What a client is told of a fill that came to nothing. Pure.

Keeps rule 8: words of ours, names of the operator's, and identifiers of a cluster's; never what was said or what a cluster
wrote besides.
"""

import math
from collections.abc import Sequence

from edgecache.clusters.fault import Fault, UpstreamFault
from edgecache.clusters.selection import NoneLeft
from edgecache.errors import ClientError, NodeError, SpeechError, UpstreamError


def full() -> NodeError:
    """There is no room for more bytes; it says nothing about any cluster."""
    return NodeError(503, "busy", "This edge holds as much unfinished audio as it may.", retry_after_s=1)


def stopping() -> NodeError:
    """This edge goes down."""
    return NodeError(503, "stopping", "This edge is stopping.", retry_after_s=1)


def failed() -> NodeError:
    """A mistake of ours."""
    return NodeError(500, "internal_error", "This edge failed; the log has the reason.")


def broken(fault: UpstreamFault) -> UpstreamError:
    """It was heard, and is no whole."""
    return UpstreamError(502, "broken_off", f"The cluster {fault.cluster} broke off in mid-speech: {fault.detail}.")


def refusal(fault: UpstreamFault | None, none_left: NoneLeft | None) -> SpeechError:
    """What a client is told when no cluster gave any audio; also which route kept others from being asked."""
    error = _of_nobody(none_left) if fault is None else _of_fault(fault)
    if none_left is not None and none_left.barred:
        error.message += f" {_kept_in(none_left.barred)}"
    return error


def _kept_in(routes: Sequence[str]) -> str:
    if len(routes) == 1:
        return f"The route {routes[0]} keeps this utterance in its groups of clusters; no other is asked."
    return f"The routes {', '.join(routes)} keep this utterance in their groups of clusters; no other is asked."


def _of_nobody(none_left: NoneLeft | None) -> SpeechError:
    assert none_left is not None
    wait_s = max(1, math.ceil(none_left.retry_after_s))
    if none_left.busy:
        return NodeError(503, "clusters_busy", "Every TTS cluster is busy.", retry_after_s=wait_s)
    return UpstreamError(503, "no_cluster", "No TTS cluster can be reached.", retry_after_s=wait_s)


def _of_fault(fault: UpstreamFault) -> SpeechError:
    where = f"The cluster {fault.cluster}"
    match fault.fault:
        case Fault.REFUSED:
            status = fault.status if fault.status in (400, 404, 413, 422) else 400
            why = f": {fault.named.code}" if fault.named.code else ""
            message = f"{where} refused this utterance with {fault.status}{why}."
            return ClientError(status, "refused_by_cluster", message, param=fault.named.param)
        case Fault.FIRST_BYTE_TIMEOUT | Fault.STALLED | Fault.TRICKLED | Fault.TOTAL_TIMEOUT:
            return UpstreamError(504, "cluster_too_slow", f"{where} gave no audio in time.")
        case Fault.CONNECT | Fault.UNTRUSTED | Fault.MISLED:
            return UpstreamError(503, "no_cluster", f"{where} can't be reached.", retry_after_s=1)
        case Fault.BUSY:
            wait_s = max(1, math.ceil(fault.retry_after_s or 1))
            return UpstreamError(503, "clusters_busy", f"{where} is busy.", retry_after_s=min(wait_s, 60))
        case _:
            return UpstreamError(502, "bad_cluster_answer", f"{where} gave no usable audio: {fault.detail}.")
