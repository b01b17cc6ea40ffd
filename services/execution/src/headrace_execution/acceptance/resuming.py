"""From which cursors the stages of a plan go on."""

from headrace_definition.plan import Plan, SinkTask, SourceTask, Stage


def resumed_cursors(plan: Plan, stage: Stage) -> tuple[tuple[str, str], ...]:
    """The cursors of a stage, as pairs of sink and source: for each of its incremental sources, those of all
    sinks that its rows come to.

    Such a sink may be in a later stage, which gets the rows as an artifact: where the reading goes on is
    decided here nevertheless.
    """
    origins = _origins(plan)
    return tuple(
        (task.key, source)
        for task in plan.tasks
        if isinstance(task, SinkTask) and task.type != "discard"
        for source in stage.tasks
        if source in origins[task.key]
    )


def _origins(plan: Plan) -> dict[str, frozenset[str]]:
    """The incremental sources that each task's rows come from."""
    origins: dict[str, frozenset[str]] = {}
    for task in plan.tasks:  # each comes after its inputs
        own = isinstance(task, SourceTask) and task.config.incremental is not None
        inherited = (origins[key] for key in task.inputs)
        origins[task.key] = frozenset([task.key] if own else []).union(*inherited)
    return origins
