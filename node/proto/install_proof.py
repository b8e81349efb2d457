"""What is heard of a machine that is being installed, and when it counts as installed.

It knows no sockets. Rules: installed is who phoned in under the capability of this attempt,
nothing else; a text with secrets in it is handed out once an attempt, and whoever asks again is
noted, so that the job says it.
"""

from collections.abc import Mapping
from typing import Any, Final

from node.proto.net_boot_proof import Proved, Waits

READ: Final = "answers_ms"
AGAIN: Final = "answers_again"
STARTED: Final = "started_ms"


def judge_install(
    name: str, attempt: int, heard: Mapping[str, Any], trouble: str | None
) -> Proved | Waits:
    """Say what stands of an installation."""
    if heard.get("attempt") != attempt:
        return Waits(trouble)
    if heard.get("phoned_in"):
        return Proved({"attempt": attempt, "phoned_in": True})
    if heard.get(AGAIN):
        return Waits(
            f"the answers for {name} were read once and asked for again from"
            f" {heard[AGAIN]}: secrets go out once; if it does not phone in, retry the job"
        )
    if isinstance(heard.get(STARTED), int):
        return Waits(f"{name} installs itself; waits for it to phone in")
    if isinstance(heard.get(READ), int):
        return Waits(f"{name} has read its answers; waits for it to phone in")
    if trouble is not None:
        return Waits(trouble)
    if isinstance(heard.get("boots_ms"), int):
        return Waits(f"{name} has fetched its installer and starts it")
    return Waits(None)


def hear_install(
    heard: Mapping[str, Any], now_ms: int, news: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what was heard of this attempt with more of it."""
    kept = dict(heard)
    answers = news.get("answers")
    if isinstance(answers, Mapping):
        if was_read(kept, answers):
            kept[AGAIN] = str(answers.get("ip"))[:64]
        kept.setdefault(READ, now_ms)
        kept["trouble"] = None
    if news.get("started") is True:
        kept.setdefault(STARTED, now_ms)
    if isinstance(news.get("trouble"), str):
        kept["trouble"] = str(news["trouble"])[:300]
    return kept


def was_read(heard: Mapping[str, Any], answers: Mapping[str, Any]) -> bool:
    """Tell whether a text that goes out once has gone out."""
    return answers.get("once") is True and isinstance(heard.get(READ), int)
