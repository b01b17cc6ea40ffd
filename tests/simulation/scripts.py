"""What one seed is about: pipelines, what their stages will do, and what users ask for."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from uuid import UUID

from headrace_execution.acceptance.starting import Start
from headrace_execution.domain.lifecycle import Order
from headrace_execution.domain.recipe import (
    OnTimeout,
    Policy,
    Priority,
    Recipe,
    StageSpec,
    TaskSpec,
    WaitSpec,
)
from headrace_execution.domain.triggers import MANUAL, Overlap, Trigger, TriggerKind

TENANT = UUID(int=1)
WORKSPACE = UUID(int=2)
SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((),),
    ((), (0,)),
    ((), ()),
    ((), (0,), (0,)),
    ((), (), (0, 1)),
)
SHAPE_WEIGHTS = (5, 3, 1, 1, 1)
WAITING_SHAPES: tuple[tuple[tuple[tuple[int, ...], ...], frozenset[int]], ...] = (
    (((), (0,)), frozenset({0})),
    (((), (0,), (0, 1)), frozenset({1})),
    (((), (), (0, 1)), frozenset({1})),
    (((), (0,), (1,), (0, 2)), frozenset({1, 2})),
)
"""Shapes with stages that wait for signals, and which these are: a gate, rows that wait, a wait beside a
stage, two waits in a row."""


class Manner(Enum):
    """How a stage behaves."""

    WELL = "it completes"
    FLAKY = "its first attempts fail for a transient reason"
    SLOW = "its first attempts take longer than they may"
    BROKEN = "it fails for a reason that no retry changes"
    POISON = "it ends its process, each time"
    DEADLY = "it ends its worker, each time"


@dataclass(frozen=True, slots=True)
class StageScript:
    """What a stage does each time it runs."""

    manner: Manner
    seconds: float
    times: int = 0
    """How many attempts fail before one does not."""
    obeys: bool = True
    """Whether it stops when it is told to; else it has to be killed."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline and its scripts, one a stage."""

    id: UUID
    recipe: Recipe
    stages: tuple[StageScript, ...]
    incremental: bool

    @property
    def limit(self) -> int | None:
        """How many of its runs may be live at once."""
        return self.recipe.policy.max_concurrent_runs


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the ticks of a schedule are started with."""

    name: str
    overlap: Overlap | None
    queue_limit: int


@dataclass(slots=True)
class Word:
    """A signal that users send to a run until they are answered, and what has come of that."""

    signal: str
    after: float
    """Seconds from the acceptance of the run."""
    rivals: int
    """How many users send it."""
    refuses: bool = False
    """Whether it says that the run may not go on."""
    taken_by: list[str] = field(default_factory=list)
    """Those who were told that theirs was taken."""


@dataclass(slots=True)
class Request:
    """A run that a user or a schedule asks for until it is answered, and what has come of that."""

    number: int
    pipeline: Pipeline
    at: float
    priority: Priority
    cancel_after: float | None
    """Seconds from the answer until it is cancelled."""
    impatient: bool
    """Whether it is asked for on two replicas at once."""
    run_id: UUID | None = None
    refused: str | None = None
    cancel_sent: bool = False
    told_final: str | None = None
    """A final state that a user was told."""
    schedule: Schedule | None = None
    """Whose tick it is; None for a user's."""
    rivals: int = 0
    """How many users try it again, should it fail or be cancelled."""
    retries: list[UUID] = field(default_factory=list)
    """The runs that came of that."""
    words: tuple[Word, ...] = ()
    """What is said to it."""

    def order(self, new_id: "IdMaker") -> Order:
        """A new order of the run: each try has ids of its own."""
        recipe = self.pipeline.recipe
        return Order(
            run_id=new_id(),
            stage_ids=tuple(new_id() for _ in recipe.stages),
            tenant=TENANT,
            workspace=WORKSPACE,
            pipeline=self.pipeline.id,
            pipeline_version=1,
            recipe=recipe,
            parameters=json.dumps({"request": self.number}).encode(),
            triggered_by="ada",
            priority=self.priority,
            trigger=self._trigger(),
        )

    def start(self, new_id: "IdMaker") -> Start:
        """What a scheduler asks for."""
        limit = self.schedule.queue_limit if self.schedule is not None else 0
        return Start(f"tick {self.number}", self.order(new_id), limit)

    def _trigger(self) -> Trigger:
        if self.schedule is None:
            return MANUAL
        key = f"tick {self.number}"
        return Trigger(TriggerKind.SCHEDULE, self.schedule.name, key, self.schedule.overlap)


class IdMaker:
    """Identities that tell nothing, in the order in which they were made."""

    def __init__(self, first: int = 1000) -> None:
        self._last = first

    def __call__(self) -> UUID:
        """The next one."""
        self._last += 1
        return UUID(int=(self._last << 80) | (0x7 << 76) | (0x2 << 62))


def number_of(parameters: bytes) -> int:
    """Which request a run is of."""
    number: int = json.loads(parameters)["request"]
    return number


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is decided before a seed begins."""

    pipelines: tuple[Pipeline, ...]
    requests: tuple[Request, ...]
    closes: dict[float, Pipeline] = field(default_factory=dict)
    worker_slots: tuple[int, ...] = (2, 2)
    probes: tuple[float, ...] = ()
    """When somebody asks about a connection."""


def make_plan(chance: random.Random, new_id: IdMaker) -> Plan:
    """Draws a plan."""
    pipelines = tuple(_pipeline(chance, new_id()) for _ in range(chance.randint(1, 3)))
    together = [chance.uniform(0.2, 12.0) for _ in range(2)]
    requests = tuple(
        Request(
            number=number,
            pipeline=chance.choice(pipelines),
            # Many at the same moment, for it is then that they meet.
            at=chance.choice((*together, chance.uniform(0.2, 12.0))) + chance.uniform(0, 0.01),
            priority=chance.choice(list(Priority)),
            cancel_after=chance.choice((0.0, chance.uniform(0, 8))) if chance.random() < 0.25 else None,
            impatient=chance.random() < 0.15,
        )
        for number in range(chance.randint(2, 7))
    )
    closes = {chance.uniform(4, 14): chance.choice(pipelines)} if chance.random() < 0.15 else {}
    slots = tuple(chance.randint(1, 3) for _ in range(chance.randint(1, 3)))
    probes = tuple(chance.uniform(0.5, 15.0) for _ in range(chance.choice((0, 0, 0, 1, 3))))
    ticks = _ticks(chance, pipelines, len(requests))
    for request in (*requests, *ticks):
        request.rivals = chance.choice((0, 0, 0, 1, 1, 2))
        request.words = tuple(_words(chance, request.pipeline.recipe))
    return Plan(pipelines, (*requests, *ticks), closes, slots, probes)


def _words(chance: random.Random, recipe: Recipe) -> Iterator[Word]:
    for wait in (stage.wait for stage in recipe.stages if stage.wait is not None):
        if chance.random() < 0.8:
            after = chance.choice((0.0, chance.uniform(0, 4), chance.uniform(0, 15)))
            yield Word(wait.signal, after, chance.choice((1, 1, 1, 2, 3)), chance.random() < 0.15)


def _ticks(chance: random.Random, pipelines: tuple[Pipeline, ...], first: int) -> tuple[Request, ...]:
    """The ticks of up to two schedules, which may share a pipeline."""
    ticks: list[Request] = []
    for name in range(chance.choice((0, 0, 1, 1, 2))):
        rule = chance.choice((None, *Overlap, *Overlap))
        schedule = Schedule(f"schedule {name}", rule, chance.choice((0, 1, 3)))
        pipeline, at, gap = chance.choice(pipelines), chance.uniform(0.2, 6.0), chance.choice((0.0, 0.5, 3.0))
        ticks += [
            Request(
                number=first + len(ticks) + number,
                pipeline=pipeline,
                at=at + number * gap + chance.uniform(0, 0.01),
                priority=Priority.NORMAL,
                cancel_after=chance.uniform(0, 8) if chance.random() < 0.1 else None,
                impatient=chance.random() < 0.4,
                schedule=schedule,
            )
            for number in range(chance.randint(2, 5))
        ]
    return tuple(ticks)


def _pipeline(chance: random.Random, pipeline: UUID) -> Pipeline:
    shape = chance.choices(SHAPES, SHAPE_WEIGHTS)[0]
    incremental = chance.random() < 0.2
    waiting: frozenset[int] = frozenset()
    if incremental:
        shape = ((),)
    elif chance.random() < 0.25:
        shape, waiting = chance.choice(WAITING_SHAPES)
    queue_timeout = chance.uniform(3, 15) if chance.random() < 0.05 else None
    policy = Policy(
        max_retries=chance.randrange(3),
        retry_delay=timedelta(seconds=chance.choice((0.5, 1.0, 3.0))),
        attempt_timeout=timedelta(seconds=15),
        # What the simulation does to workers must not park a stage that is well.
        max_lost=1000,
        max_concurrent_runs=1 if incremental else chance.choice((None, None, None, 1, 2)),
        queue_when_full=incremental or chance.random() < 0.9,
        queue_timeout=timedelta(seconds=queue_timeout) if queue_timeout else None,
        total_timeout=timedelta(seconds=chance.uniform(5, 40)) if chance.random() < 0.05 else None,
    )
    scripts = tuple(
        StageScript(Manner.WELL, 0.0) if position in waiting else _script(chance, policy)
        for position in range(len(shape))
    )
    if any(script.manner in (Manner.POISON, Manner.DEADLY) for script in scripts):
        policy = replace(policy, max_lost=3)
    return Pipeline(pipeline, _recipe(chance, shape, policy, incremental, waiting), scripts, incremental)


def _script(chance: random.Random, policy: Policy) -> StageScript:
    manner = chance.choices(list(Manner), (70, 12, 5, 6, 4, 3))[0]
    times = chance.randint(1, policy.max_retries + 1) if manner in (Manner.FLAKY, Manner.SLOW) else 0
    seconds = chance.choice((0.0, chance.uniform(0.05, 1.0), chance.uniform(0.5, 6.0)))
    return StageScript(manner, seconds, times, obeys=chance.random() < 0.85)


def _recipe(
    chance: random.Random,
    shape: tuple[tuple[int, ...], ...],
    policy: Policy,
    incremental: bool,
    waiting: frozenset[int],
) -> Recipe:
    tasks: list[TaskSpec] = []
    stages: list[StageSpec] = []
    for number, depends_on in enumerate(shape):
        if number in waiting:
            timeout = timedelta(seconds=chance.choice((chance.uniform(0.5, 6), chance.uniform(4, 30))))
            wait = WaitSpec(
                f"signal{number}",
                timeout,
                chance.choice(list(OnTimeout)),
                data=b'{"data":{"ok":{"type":"boolean","default":true}}}',
                proceed_if=b'{"ok":true}',
            )
            stages.append(StageSpec(f"s{number}", (len(tasks),), depends_on, (), (), b"", wait=wait))
            tasks.append(TaskSpec(f"wait{number}", "transform", "wait_for_signal"))
            continue
        sinks = 1 if incremental else chance.choices((0, 1, 2), (2, 7, 1))[0]
        keys = [f"rows{number}", *(f"load{number}{'ab'[sink]}" for sink in range(sinks))]
        stages.append(
            StageSpec(
                key=f"s{number}",
                tasks=tuple(range(len(tasks), len(tasks) + len(keys))),
                depends_on=depends_on,
                loads=tuple(keys[1:]),
                connections=(),
                payload=json.dumps({"stage": number, "loads": keys[1:]}).encode(),
                cursors=tuple((load, keys[0]) for load in keys[1:]) if incremental else (),
            )
        )
        tasks.append(TaskSpec(keys[0], "source", "values"))
        tasks += [TaskSpec(key, "sink", "database", "EXACTLY_ONCE") for key in keys[1:]]
    digest = hashlib.sha256(repr((tasks, stages, policy)).encode()).digest()
    if digest[0] % 3 == 0:
        most = 1 if digest[1] % 3 else 2
        limits = ((f"connection for {most}", most),)
        stages = [replace(stage, limits=limits) if stage.wait is None else stage for stage in stages]
    return Recipe(digest, "JDBC", "it is the only one", tuple(tasks), tuple(stages), policy)
