"""Cuts the tasks of a plan into stages.

A stage is a connected part of the graph. A materialised task ends its part: what reads it goes on in a
later stage, from an artifact. Stages come in levels, one more for each materialised task on the way, so
that they can never wait for each other in a circle; rows that another path carries across levels are handed
over as artifacts too.
"""

from collections.abc import Mapping, Sequence

from headrace_definition.plan import CheckTask, SinkTask, SourceTask, Stage, Task, TransformTask


def cut_into_stages(tasks: Sequence[Task]) -> tuple[Stage, ...]:
    """The stages of tasks that are in an order in which each comes after its inputs."""
    by_key = {task.key: task for task in tasks}
    levels = _levels(tasks, by_key)
    groups = _connected(tasks, levels)
    names = {head: f"s{number}" for number, head in enumerate(_heads(tasks, groups, levels), start=1)}
    stage_of = {task.key: names[groups[task.key]] for task in tasks}
    members: dict[str, list[Task]] = {name: [] for name in names.values()}
    for task in tasks:
        members[stage_of[task.key]].append(task)
    crossing: dict[str, set[str]] = {}
    for task in tasks:
        for key in task.inputs:
            if key in stage_of and stage_of[key] != stage_of[task.key]:
                crossing.setdefault(stage_of[key], set()).add(key)
    absorbed = _absorbed(tasks)
    return tuple(
        _stage(name, inside, stage_of, crossing.get(name, set()), absorbed)
        for name, inside in members.items()
    )


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
            step = 1 if ends_here and not isinstance(task, CheckTask) else 0
            level = max(level, levels[key] + step)
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
            if key not in parent:
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
    crossing: set[str],
    absorbed: frozenset[str],
) -> Stage:
    needed = dict.fromkeys(key for task in tasks for key in task.inputs if stage_of.get(key, name) != name)
    depends_on = sorted({stage_of[key] for key in needed}, key=lambda key: int(key[1:]))
    return Stage(
        key=name,
        tasks=tuple(task.key for task in tasks),
        depends_on=tuple(depends_on),
        artifacts_in=tuple(needed),
        artifacts_out=tuple(task.key for task in tasks if task.key in crossing),
        connections=connections_of(tasks),
        rereads=tuple(task.key for task in tasks if _is_incremental(task) and task.key in absorbed),
    )


def _is_incremental(task: Task) -> bool:
    return isinstance(task, SourceTask) and task.config.incremental is not None
