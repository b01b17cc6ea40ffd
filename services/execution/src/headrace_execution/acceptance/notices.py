"""Who is to be told of a run, as the version or the text that it runs says."""

from headrace.metadata.v1 import definitions_pb2, pipelines_pb2
from headrace_definition import Compiled

from headrace_execution.domain.recipe import Channel, Notices, Receiver


def notices_of(
    compiled: Compiled, definition: definitions_pb2.Definition, *, is_version: bool
) -> Notices | None:
    """Those of a pipeline's settings; a text that came with the run speaks for itself where it names any."""
    given = [
        Receiver(each.on, Channel(each.type), each.target, each.signing_secret)
        for each in compiled.definition.notifications
    ]
    settled = [_receiver(each) for each in definition.notifications]
    receivers = tuple(settled if is_version or not given else given)
    return Notices(definition.name, receivers) if receivers else None


def _receiver(message: pipelines_pb2.Notification) -> Receiver:
    return Receiver(
        on=tuple(
            pipelines_pb2.PipelineStatus.Name(word).removeprefix("PIPELINE_STATUS_") for word in message.on
        ),
        channel=Channel(pipelines_pb2.NotificationType.Name(message.type).removeprefix("NOTIFICATION_TYPE_")),
        target=message.target,
        signing_secret=message.signing_secret or None,
    )
