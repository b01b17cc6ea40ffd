"""Cuts the tasks of a plan into stages.

A stage is a connected part of the graph. A materialised task ends its part: what reads it goes on in a
later stage, from an artifact. Stages come in levels, one more for each materialised task on the way, so
that they can never wait for each other in a circle; rows that another path carries across levels are handed
over as artifacts too.

A task that waits for a signal is a stage by itself, which no worker runs; what comes after a task without
reading its rows is in a later level too. The rows that wait for a signal are the artifact of the task that
made them: the waiting task only lends them its name.
"""

import math
from collections.abc import Mapping, Sequence

from headrace_definition.model import WaitForSignal
from headrace_definition.plan import CheckTask, SinkTask, SourceTask, Stage, Task, TransformTask
from headrace_definition.waiting import signals_in


def cut_into_stages(tasks: Sequence[Task]) -> tuple[Stage, ...]:
    """The stages of tasks that are in an order in which each comes after its inputs."""
    by_key = {task.key: task for task in tasks}
    levels = _levels(tasks, by_key)
    groups = _connected(tasks, levels)
    held = _held_rows(tasks)
    names = {head: f"s{number}" for number, head in enumerate(_heads(tasks, groups, levels), start=1)}
    stage_of = {task.key: names[groups[task.key]] for task in tasks}
    members: dict[str, list[Task]] = {name: [] for name in names.values()}
    for task in tasks:
        members[stage_of[task.key]].append(task)
    crossing: dict[str, set[str]] = {}
    for task in tasks:
        for key in task.inputs:
            origin = held.get(key, key)
            if _wait(task) is None and origin in stage_of and stage_of[origin] != stage_of[task.key]:
                crossing.setdefault(stage_of[origin], set()).add(origin)
    absorbed, resumed = _absorbed(tasks), _resumed(tasks, stage_of)
    stages = tuple(
        _stage(name, inside, stage_of, held, crossing.get(name, set()), absorbed, resumed.get(name, ()))
        for name, inside in members.items()
    )
    return tuple(_kept_long_enough(stage, stages, by_key) for stage in stages)


def connections_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The connections that tasks use, sorted."""
    named = {task.config.connection for task in tasks if isinstance(task, SourceTask | SinkTask)}
    return tuple(sorted(name for name in named if name is not None))


def _absorbed(tasks: Sequence[Task]) -> frozenset[str]:
    """The tasks whose rows only come to sinks that merge by key, or drop them: a row that comes again does
    no harm there."""
    harmed: set[str] = set()
    for task in reversed(tasks):  # each comes after its inputs
        if task.key in harmed or (isinstance(task, SinkTask) and not _absorbs(task)):
            harmed.update(task.inputs)
    return frozenset(task.key for task in tasks if task.key not in harmed)


def _absorbs(sink: SinkTask) -> bool:
    return sink.config.discard or sink.config.mode == "merge"


def _wait(task: Task | None) -> WaitForSignal | None:
    return task.wait if isinstance(task, TransformTask) else None


def _held_rows(tasks: Sequence[Task]) -> dict[str, str]:
    """For each task that holds rows until a signal comes the task that has made them."""
    held: dict[str, str] = {}
    for task in tasks:
        if _wait(task) is not None and task.inputs:
            held[task.key] = held.get(task.inputs[0], task.inputs[0])
    return held


def _levels(tasks: Sequence[Task], by_key: Mapping[str, Task]) -> dict[str, int]:
    levels: dict[str, int] = {}
    for task in tasks:
        level = 0
        for key in task.inputs:
            producer = by_key.get(key)
            if producer is None:
                continue
            # A check judges a materialised result before anything goes on from it, in the same stage.
            ends_here = isinstance(producer, TransformTask) and producer.config.materialize
            waits = _wait(task) is not None or _wait(producer) is not None
            step = 1 if waits or (ends_here and not isinstance(task, CheckTask)) else 0
            level = max(level, levels[key] + step)
        level = max([level, *(levels[key] + 1 for key in task.after if key in by_key)])
        levels[task.key] = level
    return levels


def _connected(tasks: Sequence[Task], levels: Mapping[str, int]) -> dict[str, str]:
    """For each task a task that stands for its stage: those of one level that are joined have the same."""
    parent = {task.key: task.key for task in tasks}

    def find(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    first_reader: dict[tuple[str, int], str] = {}
    for task in tasks:
        for key in task.inputs:
            if key not in parent or _wait(task) is not None:
                continue
            if levels[key] == levels[task.key]:
                parent[find(task.key)] = find(key)
            else:
                # Readers of one artifact run together, so that it is read once.
                other = first_reader.setdefault((key, levels[task.key]), task.key)
                parent[find(task.key)] = find(other)
    return {task.key: find(task.key) for task in tasks}


def _heads(tasks: Sequence[Task], groups: Mapping[str, str], levels: Mapping[str, int]) -> list[str]:
    heads = list(dict.fromkeys(groups[task.key] for task in tasks))
    return sorted(heads, key=lambda head: levels[head])


def _stage(
    name: str,
    tasks: Sequence[Task],
    stage_of: Mapping[str, str],
    held: Mapping[str, str],
    crossing: set[str],
    absorbed: frozenset[str],
    resumed: Sequence[SinkTask],
) -> Stage:
    read = dict.fromkeys(key for task in tasks for key in task.inputs if stage_of.get(key, name) != name)
    waits = any(_wait(task) is not None for task in tasks)
    origins = {} if waits else {key: held[key] for key in read if key in held}
    before = [*read, *origins.values(), *(key for task in tasks for key in task.after if key in stage_of)]
    signals = frozenset().union(*(signals_in(task.config.model_dump_json()) for task in tasks if task.after))
    return Stage(
        key=name,
        tasks=tuple(task.key for task in tasks),
        depends_on=tuple(sorted({stage_of[key] for key in before}, key=lambda key: int(key[1:]))),
        artifacts_in=() if waits else tuple(read),
        artifacts_out=tuple(task.key for task in tasks if task.key in crossing),
        held_rows=origins,
        signals=tuple(sorted(signals)),
        connections=connections_of([*tasks, *resumed]),
        rereads=tuple(task.key for task in tasks if _is_incremental(task) and task.key in absorbed),
        resumes=tuple(sink.key for sink in resumed),
    )


def _resumed(tasks: Sequence[Task], stage_of: Mapping[str, str]) -> dict[str, list[SinkTask]]:
    """For each stage with incremental sources the sinks of later stages that their rows come to, and that
    have a ledger which can be asked."""
    read_in: dict[str, frozenset[str]] = {}
    resumed: dict[str, list[SinkTask]] = {}
    for task in tasks:  # each comes after its inputs
        own = frozenset([stage_of[task.key]] if _is_incremental(task) else [])
        read_in[task.key] = own.union(*(read_in.get(key, frozenset()) for key in task.inputs))
        if isinstance(task, SinkTask) and _can_be_asked(task):
            for stage in read_in[task.key] - {stage_of[task.key]}:
                resumed.setdefault(stage, []).append(task)
    return resumed


def _can_be_asked(sink: SinkTask) -> bool:
    if sink.config.discard or sink.config.output is not None:
        return False
    return not signals_in(sink.config.model_dump_json())


def _is_incremental(task: Task) -> bool:
    return isinstance(task, SourceTask) and task.config.incremental is not None


def _kept_long_enough(stage: Stage, stages: Sequence[Stage], by_key: Mapping[str, Task]) -> Stage:
    """The stage with how long its artifacts may have to wait for those who read them: for the signals of all
    later stages, at the most."""
    later = stages[stages.index(stage) + 1 :] if stage.artifacts_out else ()
    waits = [wait for each in later for key in each.tasks if (wait := _wait(by_key[key])) is not None]
    if not waits:
        return stage
    seconds = sum(wait.timeout.total_seconds() for wait in waits)
    return stage.model_copy(update={"keep_seconds": math.ceil(seconds)})
