"""One question to some sites, and their answers one at a time: push, pull, fold, drop.

Written over Flower's Grid, whose own loop waits for ever and keeps every reply. Here a question closes when
all have answered, `grace_s` after a quorum has, or at its deadline; who is late or refused is named. A site
that was away and came back is asked again, and answers from its own cache; an answer counts once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from flwr.app import Message

from fedai import wire
from fedai.errors import FedaiError, RefusedByPolicy
from fedai.flower import MESSAGE_TYPES, read_reply, task_record
from fedai.heads import Head
from fedai.study import Study
from fedai.weights import Layout
from fedai.wire import Reply, Task

SHORTEST_POLL_S, LONGEST_POLL_S = 0.1, 1.0
POLL_SHARE = 0.05  # of the time that a question is open already
LOOK_AROUND_S = 1.0
LOOK_S = 2.0
MOST_LOOKS = 2  # answers fetched at once: each is in memory whole
STUCK_S = 30.0  # what takes longer is waiting for a body that doesn't come, and makes room for the next
HOPELESS_S = 5.0  # a question that can't be decided any more is open as long, to hear the others' reasons too
TTL_MARGIN_S = 120.0

log = logging.getLogger("fedai.server.rounds")
Fold = Callable[[str, Reply], None]


class Grid(Protocol):
    """What is used of flwr.serverapp.Grid, and `get_nodes` of its HTTP one (names and activation times)."""

    def get_nodes(self) -> Any: ...
    def push_messages(self, messages: Any) -> Any: ...
    def pull_messages(self, message_ids: Any) -> Any: ...


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds. With fewer than `least` answers still possible a question closes soon.

    An answer that may still be taken after the question has closed has `answer_s` to come.
    """

    quorum: int
    grace_s: float
    deadline_s: float
    least: int = 0
    answer_s: float = 0.0


@dataclass
class Asked:
    """What became of a question."""

    answered: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def then(self, later: Asked) -> Asked:
        """Both, where others were asked later."""
        return Asked(
            self.answered + later.answered,
            self.late + later.late,
            self.refused | later.refused,
            self.received | later.received,
            self.seconds + later.seconds,
        )


class _Look:
    """One question for one reply, in a thread of its own.

    Flower takes a reply as soon as its head is there and then waits, minutes if need be, for a body that is
    still being sent or never comes, as when a site's line breaks; the other sites must not wait for that.
    """

    def __init__(self, grid: Grid, message_id: str) -> None:
        self._answers: SimpleQueue[list[Message] | Exception] = SimpleQueue()
        self._begun = time.monotonic()
        threading.Thread(target=self._ask, args=(grid, message_id), daemon=True).start()

    def _ask(self, grid: Grid, message_id: str) -> None:
        try:
            self._answers.put(list(grid.pull_messages([message_id])))
        except Exception as error:  # noqa: BLE001  raised again by `found`, where somebody hears it
            self._answers.put(error)

    @property
    def is_fresh(self) -> bool:
        """Whether it may still be fetching, rather than waiting in vain."""
        return time.monotonic() - self._begun < STUCK_S

    def found(self, wait_s: float) -> list[Message] | None:
        """The replies, none or one; None while that is not known yet. Raises what the question raised."""
        try:
            answer = self._answers.get(timeout=wait_s)
        except Empty:
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Open:
    """A question that a site hasn't answered yet: the messages sent, and when the site last came online."""

    task: Task
    node_id: int = 0
    messages: list[str] = field(default_factory=list)
    activated_at: str = ""
    looks: dict[str, _Look] = field(default_factory=dict)

    def look(self, grid: Grid, may_begin: Callable[[], bool]) -> Iterator[Message]:
        """The replies that are there; one still on its way after `LOOK_S` is left for a later look, as is
        one for which `may_begin` says no. Raises RefusedByPolicy for one that can't be taken in.
        """
        for message_id in list(self.messages):
            begun = self.looks.pop(message_id, None)
            if begun is None and not may_begin():
                continue
            look = begun or _Look(grid, message_id)
            found = look.found(0 if begun else LOOK_S)
            if found is None:
                self.looks[message_id] = look
            yield from found or ()

    def check_sender(self, message: Message) -> None:
        """The answer says of itself who sent it, and to which question; it must be this one's."""
        told = message.metadata
        if told.src_node_id != self.node_id or told.reply_to_message_id not in self.messages:
            raise RefusedByPolicy("the answer says that it is another site's, or to another question")


@dataclass
class Correspondence:
    """The server's side of a run's messages. `is_stopped` is asked between polls; `note_head` is told each
    head of a site's ledger that came with an answer. `note_question` is told whom something is asked, and how
    long that is open; `note_answer` who has answered, why that doesn't count, and the bytes of its arrays.
    """

    grid: Grid
    study: Study
    layout: Layout
    is_stopped: Callable[[], bool] = lambda: False
    note_head: Callable[[str, Head], None] = lambda site, head: None
    note_question: Callable[[Mapping[str, Open], Patience], None] = lambda waiting, patience: None
    note_answer: Callable[[str, str, int], None] = lambda site, refused, received: None

    def online(self) -> dict[str, Any]:
        """Nodes of the study's sites that are online, by site."""
        return {node.name: node for node in self.grid.get_nodes() if node.name in self.study.sites}

    def ask(
        self,
        tasks: Mapping[str, Task],
        patience: Patience,
        fold: Fold,
        under_way: dict[str, Open] | None = None,
    ) -> Asked:
        """Ask each site its task. `fold` takes an answer that fits the wire; what it raises counts as a
        refusal.

        `under_way`: what was asked before and isn't answered. Such a site is asked nothing new, and its
        answer is taken; at the end it holds what isn't answered then.
        """
        started, quorum_at, hopeless_at, looked_at = time.monotonic(), None, None, float("-inf")
        asked, waiting = Asked(), {} if under_way is None else under_way
        for site, task in tasks.items():
            waiting.setdefault(site, Open(task))
        self.note_question(waiting, patience)
        nodes: dict[str, Any] = {}
        while waiting and not self.is_stopped():
            now = time.monotonic()
            if now - looked_at > LOOK_AROUND_S:
                nodes, looked_at = self.online(), now
                self._send(waiting, nodes, patience)
            for site in [site for site in waiting if site in nodes]:
                self._collect(site, waiting, asked, fold)
                if site not in waiting:
                    self.note_answer(site, asked.refused.get(site, ""), asked.received.get(site, 0))
            if hopeless_at is None and len(asked.answered) + len(waiting) < patience.least:
                hopeless_at = time.monotonic()
            if hopeless_at is not None and time.monotonic() - hopeless_at >= HOPELESS_S:
                break
            if quorum_at is None and len(asked.answered) >= patience.quorum:
                quorum_at = time.monotonic()
            if _is_over(time.monotonic(), started, quorum_at, patience):
                break
            if waiting:
                time.sleep(_pause(time.monotonic() - started))
        asked.late = sorted(waiting)
        asked.seconds = time.monotonic() - started
        return asked

    def _send(self, waiting: dict[str, Open], nodes: dict[str, Any], patience: Patience) -> None:
        """Send what wasn't sent, and again to who has come back since."""
        for site, open_ in waiting.items():
            node = nodes.get(site)
            if node is None or node.last_activated_at == open_.activated_at:
                continue
            message = Message(
                task_record(open_.task),
                dst_node_id=node.node_id,
                message_type=MESSAGE_TYPES[open_.task.kind],
                ttl=max(patience.deadline_s, patience.answer_s) + TTL_MARGIN_S,
                group_id=str(open_.task.round),
            )
            sent = [message_id for message_id in self.grid.push_messages([message]) if message_id]
            if sent:
                open_.messages += sent
                open_.node_id = node.node_id
                open_.activated_at = node.last_activated_at

    def _collect(self, site: str, waiting: dict[str, Open], asked: Asked, fold: Fold) -> None:
        """Take a site's answer, if it is there, and let it go again before the next is fetched."""
        open_ = waiting[site]

        def may_begin() -> bool:
            looks = [look for one in waiting.values() for look in one.looks.values()]
            return sum(look.is_fresh for look in looks) < MOST_LOOKS

        try:
            for message in open_.look(self.grid, may_begin):
                if site not in waiting:
                    continue  # it had been asked twice and has answered twice; the first counts
                if message.has_error() and message.error.code != wire.ERROR_NUMBER:
                    self._ask_again(site, open_, message)
                    continue
                del waiting[site]
                self._take(site, open_, message, asked, fold)
        except RefusedByPolicy as error:
            log.warning("%s: its answer was refused: %s", site, error, extra={"site": site})
            if waiting.pop(site, None) is not None:
                asked.refused[site] = f"{error.code} {error.message}"

    def _ask_again(self, site: str, open_: Open, message: Message) -> None:
        log.warning(
            "%s: Flower answers for it with code %s; asking again",
            site,
            message.error.code,
            extra={"site": site},
        )
        open_.messages = [kept for kept in open_.messages if kept != message.metadata.reply_to_message_id]
        open_.activated_at = "" if not open_.messages else open_.activated_at

    def _take(self, site: str, open_: Open, message: Message, asked: Asked, fold: Fold) -> None:
        try:
            open_.check_sender(message)
            if message.has_error():
                asked.refused[site] = _checked_code(message.error.reason)
                return
            reply = read_reply(message.content)
            asked.received[site] = bytes_of(reply)
            wire.check(reply, open_.task, self.study, self.layout)
            if reply.ledger:
                self.note_head(site, reply.ledger)
            fold(site, reply)
            asked.answered.append(site)
        except FedaiError as error:
            log.warning("%s: its answer was refused: %s", site, error, extra={"site": site})
            asked.refused[site] = f"{error.code} {error.message}"
        except Exception:  # another process's bytes: no answer may end a run
            log.exception("%s: its answer can't be used", site, extra={"site": site})
            asked.refused[site] = "BUG the answer can't be used; see the server's log"


def _pause(open_s: float) -> float:
    """Ask often at first, seldom during a long training: polling takes the SuperLink's time."""
    return min(max(SHORTEST_POLL_S, POLL_SHARE * open_s), LONGEST_POLL_S)


def _is_over(now: float, started: float, quorum_at: float | None, patience: Patience) -> bool:
    graced = quorum_at is not None and now - quorum_at >= patience.grace_s
    return graced or now - started >= patience.deadline_s


def _checked_code(reason: str | None) -> str:
    """A sealed error is a code and a reference; anything else a site might say is not repeated."""
    return reason if reason and wire.ERROR_PATTERN.fullmatch(reason) else "UNSEALED"


def bytes_of(message: Task | Reply) -> int:
    """Of its arrays; Flower's own framing of a message comes on top."""
    return sum(array.nbytes for array in message.arrays.values())


def same_task(task: Task, sites: Sequence[str]) -> dict[str, Task]:
    """The same question to each site."""
    return dict.fromkeys(sites, task)


def absent_of(asked: Asked) -> dict[str, str]:
    """Who gave no answer that counts, and why."""
    return {**dict.fromkeys(asked.late, "late"), **asked.refused}


def refusals_of(asked: Asked) -> str:
    """Who refused and with which code, to be put at the end of a sentence."""
    return told_of("refused", [f"{site} ({code})" for site, code in asked.refused.items()])


def told_of(what: str, names: list[str]) -> str:
    """`; late: north, east`, or nothing."""
    return f"; {what}: {', '.join(names)}" if names else ""
