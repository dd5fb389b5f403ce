"""The agent: one warm process that asks the server for tasks, does them, and lets answers out through egress.

It opens one connection (fedai_site.fleet), runs only what is installed here, and seals every exception.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Error, Message

from fedai import logs, wire
from fedai.errors import ConfigError, FederationError, RefusedByPolicy
from fedai.flower import read_reply, read_task, reply_record
from fedai.study import Study, parse_study
from fedai.wire import Reply, Task
from fedai_site import allowance, approvals, policy, replies, requests
from fedai_site.budget import Budget
from fedai_site.client_app import Bench
from fedai_site.confinement import confined_to
from fedai_site.egress import Egress, check_norm, seal
from fedai_site.expiry import keep_to_the_policy
from fedai_site.fleet import (
    Envelope,
    Fleet,
    Parcel,
    RunEnded,
    RunFacts,
    Unreachable,
    WrongServer,
    connect,
    pack,
)
from fedai_site.home import SiteHome
from fedai_site.permit import Permit, permit
from fedai_site.sent import DAY_S, Sent
from fedai_site.tripwire import check_pixels
from fedai_site.watchdog import Watchdog
from fedai_site.witness import heads_of, ledger_of

ACTIVE_FOR_S = 120.0
FORGET_EVERY_S = 600.0
POLL_SHARE = 0.05  # of the time since the last task
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

log = logging.getLogger("fedai.site.agent")
Tell = Callable[[str], None]


@dataclass
class Agent:
    """A site at work. `stop` ends it: between two batches, not in the middle of one."""

    home: SiteHome
    stop: threading.Event
    tell: Tell = print
    benches: dict[str, Bench] = field(default_factory=dict)
    facts: dict[int, RunFacts] = field(default_factory=dict)
    node_id: int | None = None
    forgot_at: float = float("-inf")
    expired_at: float = float("-inf")
    until: float = float("inf")  # Unix time after which the work in hand may not go on
    over: threading.Event = field(default_factory=threading.Event)
    waiting: Envelope | None = None
    said: tuple[str, str] = ("", "")  # state and text, as `status` tells them

    def __post_init__(self) -> None:
        self.sent = Sent(self.home.sent, self.home.settings.keep_sent_days)
        self.egress = Egress(ledger_of(self.home), self.sent)
        self.heads = heads_of(self.home)
        self.dog = Watchdog(self.home.settings.memory_gb, self.home.settings.stuck_minutes)

    def work(self, give_up_s: float | None = None) -> None:
        """Serve until stopped, connecting anew with growing pauses (0.5 to 30 s) whenever the server is away.

        Raises WrongServer at once, any other FederationError after `give_up_s` seconds without a connection.
        """
        pause, away_since = FIRST_PAUSE_S, time.monotonic()
        self.node_id = _remembered_node(self.home)
        while not self.stop.is_set():
            try:
                with connect(
                    self.home.settings.server.address,
                    self.home.settings.server.ca,
                    self.home.private_key,
                    leave_first=self.node_id,
                ) as fleet:
                    self._present(fleet)
                    pause = FIRST_PAUSE_S
                    self._serve(fleet)
            except WrongServer:
                raise
            except FederationError as error:
                if pause == FIRST_PAUSE_S:
                    away_since = time.monotonic()
                advice = f" ({error.hint})" if error.hint else ""
                self._say("away", f"{error.message}{advice}; trying again in {pause:.1f} s")
                if give_up_s is not None and time.monotonic() - away_since > give_up_s:
                    raise
                self.stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
        self._say("stopped", "left the federation")

    def _present(self, fleet: Fleet) -> None:
        self.node_id, self.waiting = fleet.node_id, None
        (self.home.folder / "node").write_text(str(fleet.node_id), encoding="ascii")
        self._say("connected", f"connected to {self.home.settings.server.address}")

    def _serve(self, fleet: Fleet) -> None:
        busy_at = float("-inf")
        while not self.stop.is_set():
            envelope, self.waiting = self.waiting or fleet.receive(), None
            self._note_contact()
            if envelope is not None:
                self._handle(fleet, envelope)
                busy_at = time.monotonic()
                continue
            self._rest()
            self._forget()
            self.stop.wait(self._pause(time.monotonic() - busy_at))

    def _note_contact(self) -> None:
        """The file's time says when the server answered last, to this machine alone (gauges.py)."""
        with suppress(OSError):
            os.utime(self.home.folder / "node")

    def _forget(self) -> None:
        """Delete kept bytes whose time is over, also while nothing leaves, and what the policy says."""
        if time.monotonic() - self.forgot_at > FORGET_EVERY_S:
            self.forgot_at = time.monotonic()
            self.sent.prune()
        if time.monotonic() - self.expired_at > DAY_S:
            self.expired_at = time.monotonic()
            keep_to_the_policy(self.home)

    def _pause(self, idle_s: float) -> float:
        """Ask often right after a task, less often later in a run, seldom when nothing goes on."""
        settings = self.home.settings
        if idle_s > ACTIVE_FOR_S:
            return settings.poll_idle_s
        return min(max(settings.poll_active_s, POLL_SHARE * idle_s), settings.poll_idle_s)

    def _handle(self, fleet: Fleet, envelope: Envelope) -> None:
        started = time.monotonic()
        try:
            with self._watching(fleet, envelope.run_id):
                parcel = self._answer(fleet, envelope)
            fleet.send(parcel, time.monotonic() - started)
        except RunEnded:
            log.info("run %s is over; its task was dropped", envelope.run_id)

    @contextmanager
    def _watching(self, fleet: Fleet, run_id: int) -> Iterator[None]:
        """Ask now and then whether the run goes on, while its task is worked on; else `over` is set."""
        self.over, done = threading.Event(), threading.Event()
        self.dog.begin()

        def watch(over: threading.Event) -> None:
            while not done.wait(self.home.settings.poll_idle_s):
                self.dog.look()
                if self._is_over(fleet, run_id):
                    over.set()
                    return

        thread = threading.Thread(target=watch, args=(self.over,), name="run watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            self.dog.rest()
            thread.join(timeout=5)
            logs.about(site=self.home.settings.name)

    def _is_over(self, fleet: Fleet, run_id: int) -> bool:
        """Whether a run has ended for good. One whose process at the server was killed goes on as another of
        Flower's, whose task is there by then: what is worked on answers that.
        """
        try:
            fleet.facts_of(run_id)
            self._note_contact()
        except RunEnded:
            try:
                self.waiting = self.waiting or fleet.receive()
                return self.waiting is None or not self._is_alike(fleet, run_id, self.waiting.run_id)
            except FederationError as error:
                return isinstance(error, RunEnded)
        except FederationError:
            log.info("it is not known whether run %s goes on", run_id)
        return False

    def _is_alike(self, fleet: Fleet, run_id: int, other: int) -> bool:
        return run_id in self.facts and fleet.facts_of(other).study == self.facts[run_id].study

    def _answer(self, fleet: Fleet, envelope: Envelope) -> Parcel:
        """A packed answer that has passed egress: the reply, or a sealed error in its place."""
        run = f"run-{envelope.run_id}"
        logs.about(site=self.home.settings.name, run=run)
        try:
            facts = self._facts(fleet, envelope.run_id)
            policy.check_bundle(facts.bundle_sha256)
            study = parse_study(facts.study, "the run's study")
            allowed = self._permit(study)
            message = fleet.fetch(envelope, wire.largest_task(study))
            task = read_task(message.content)
            run = _checked_run(task.run)
            logs.about(site=self.home.settings.name, run=run, round=task.round, task=task.kind)
            self._say("working", f"{run}: {task.kind} {_of(task)}".rstrip())
            reply = self._reply(task, study, envelope.run_id, allowed)
            return self._pass_out(reply, task, study, message)
        except (Unreachable, RunEnded):
            raise
        except BaseException as error:  # noqa: BLE001  the process boundary: it leaves as a code and a reference
            if self.stop.is_set() or isinstance(error, KeyboardInterrupt | SystemExit):
                raise RunEnded("the agent was stopped") from None
            if self.over.is_set():
                raise RunEnded("the run was stopped") from None
            return self._sealed(error, envelope.head, run)

    def _permit(self, study: Study) -> Permit:
        """What was asked for and isn't allowed is kept for the engineer to look at."""
        try:
            return permit(self.home, study)
        except RefusedByPolicy:
            if self.home.settings.name in study.sites:
                requests.note(self.home, study)
            raise

    def _facts(self, fleet: Fleet, run_id: int) -> RunFacts:
        if run_id not in self.facts:
            self.facts[run_id] = fleet.facts_of(run_id)
        return self.facts[run_id]

    def _reply(self, task: Task, study: Study, run_id: int, allowed: Permit) -> Reply:
        bench, budget = self._bench(study), Budget(self.home.runs, allowed)
        bench.check(task)
        run_id = allowance.origin(self.home.runs, run_id, task)
        budget.claim(run_id)
        allowance.claim(self.home.runs, run_id, task, study)
        path = replies.place(self.home.runs, task, run_id)
        kept = replies.find(path)
        if kept is not None:
            log.info("%s: %s was asked before; its kept answer is sent again", task.run, task.key)
            return kept
        bench.permit, started = allowed, time.monotonic()
        self.until = min(allowed.until, time.time() + budget.seconds_left())
        try:
            reply = self._kept_answer(bench, task, run_id, path)
        finally:
            budget.spend(seconds=time.monotonic() - started)
        log.info("%s: %s took %.3f s", task.run, task.key, time.monotonic() - started)
        return reply

    def _kept_answer(self, bench: Bench, task: Task, run_id: int, path: Path) -> Reply:
        """The answer, kept for a task that is sent again; anew where a patient withdrew at that moment."""
        while True:
            reply = bench.answer(task, run_id)
            replies.keep(path, reply)
            if bench.is_current():
                return reply
            path.unlink(missing_ok=True)

    def _bench(self, study: Study) -> Bench:
        if study.sha256 not in self.benches:
            self.benches.clear()  # one study's images in memory at a time
            self.benches[study.sha256] = Bench(self.home, study, lambda: self._may_go_on(study))
        return self.benches[study.sha256]

    def _may_go_on(self, study: Study) -> bool:
        """Asked before each batch: not stopped, the run not over, the approval there, its hours not spent.

        Raises TrainingError where the watchdog ends the work.
        """
        self.dog.check()
        going = not self.stop.is_set() and not self.over.is_set() and time.time() < self.until
        return going and approvals.is_approved_quickly(self.home.approvals, study)

    def _pass_out(self, reply: Reply, task: Task, study: Study, message: Message) -> Parcel:
        """Egress looks at what was packed, not at what it was packed from. A yes taken back is none."""
        allowed = permit(self.home, study)
        self._bench(study).check_rights()
        budget = Budget(self.home.runs, allowed)
        record = reply_record(replace(reply, ledger=self.heads.last()))
        parcel = pack(record, message)
        bench = self._bench(study)
        guards = (
            lambda reply: budget.check_bytes(parcel.size),
            lambda reply: check_norm(reply, allowed.limits.update_norm),
            lambda reply: check_pixels(reply, bench.tripwire(task.kind)),
        )
        self.egress.pass_reply(
            read_reply(record),
            task,
            study,
            bench.layout,
            task.run,
            size=parcel.size,
            objects=parcel.objects,
            guards=guards,
        )
        budget.spend(sent=parcel.size)
        return parcel

    def _sealed(self, error: BaseException, head: Message, run: str) -> Parcel:
        sealed = seal(error)
        log.error("%s: answered with %s", run, sealed, exc_info=error)
        self._say("working", f"{run}: refused or failed, see {self.home.log} for {sealed.reference}")
        parcel = pack(Error(wire.ERROR_NUMBER, str(sealed)), head)
        reason = error.reason if isinstance(error, RefusedByPolicy) else ""
        self.egress.pass_error(sealed, run, reason=reason, objects=parcel.objects)
        return parcel

    def _say(self, state: str, text: str) -> None:
        log.info(text)
        self.tell(f"{self.home.settings.name}: {text}")
        self._write_status(state, text)

    def _rest(self) -> None:
        """No task is in hand any more: `status` says so, and what the last one was."""
        state, text = self.said
        if state == "working":
            self._write_status("connected", f"waits for a task; the last was {text}")

    def _write_status(self, state: str, text: str) -> None:
        self.said = state, text
        now = datetime.now(UTC).isoformat(timespec="seconds")
        partial = self.home.status.with_suffix(".partial")
        said = json.dumps(
            {"state": state, "text": text, "at": now, "pid": os.getpid(), "reaches": confined_to}
        )
        try:
            partial.write_text(said, encoding="utf-8")
            partial.replace(self.home.status)
        except OSError as error:  # a full disk: what people read is old; what leaves is in the ledger
            log.warning("the status can't be written: %s", error)


def _checked_run(run: str) -> str:
    if not wire.RUN_PATTERN.fullmatch(run):
        raise RefusedByPolicy("the name of the run is odd")
    return run


def _of(task: Task) -> str:
    return f"round {task.round}" if task.kind == "train" else task.model


def _remembered_node(home: SiteHome) -> int | None:
    try:
        return int((home.folder / "node").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the home's lock: one agent a site. Raises ConfigError where another one runs."""
    with (folder / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                "an agent is running for this home already", hint="`fedai site status HOME`"
            ) from None
        yield


def log_to(path: Path, log_format: logs.LogFormat = "text") -> None:
    """Send this process's log to the site's own file; it never leaves the site.

    Where it can't be written (a full disk) nothing is printed instead: the ledger decides what may leave.
    """
    logging.raiseExceptions = False
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logs.formatter(log_format))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
