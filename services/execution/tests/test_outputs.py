"""Outputs: what counts as landed, and how it is downloaded."""

import hashlib
from dataclasses import replace
from typing import Any
from uuid import UUID

import grpc
import pytest
from headrace.common.v1 import reasons_pb2
from headrace.execution.v1 import outputs_pb2, outputs_pb2_grpc, runs_pb2, workers_pb2
from headrace_artifacts.keys import OUTPUTS, new_key, run_prefix
from headrace_artifacts.local import LocalStore
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.files import files_below
from headrace_execution.domain.assignments import finish
from headrace_execution.domain.lifecycle import accept
from headrace_execution.domain.retrying import retry_order
from headrace_execution.domain.run import ErrorClass, Run, StoredOutput
from headrace_execution.ranges import Selection, select
from hypothesis import given
from hypothesis import strategies as st

from .factories import NOW, WORKER, at, failed, leased, receipt, recipe
from .support import PATIENT, Cluster, Replica, ScriptedWorker, failure
from .support import receipt as reported

CONTENT = b"x\n" + b"\n".join(str(number).encode() for number in range(200_000))
DEFINITION = """
version: 1
sources: [{id: rows, values: [{x: 1}]}]
sinks: [{id: out, input: rows, output: csv}]
"""
TWO = DEFINITION.replace("sinks: [", "sinks: [{id: other, input: rows, output: json}, ")

Call = grpc.aio.UnaryStreamCall[Any, Any]


def keep(mesh: Cluster, work: workers_pb2.Assignment, content: bytes = CONTENT) -> workers_pb2.StoredOutput:
    """Puts a file into the store as a worker does."""
    prefix = run_prefix(UUID(work.tenant), UUID(work.pipeline_id), UUID(work.run_id))
    key = new_key(prefix, OUTPUTS, "out-1", "csv")
    stored = LocalStore(mesh.artifacts).put(key, [content])
    return workers_pb2.StoredOutput(
        key=key,
        format="csv",
        bytes=stored.bytes,
        sha256=stored.sha256,
        columns=[runs_pb2.OutputColumn(name="x", type="BIGINT")],
    )


def download(replica: Replica, run_id: str, *, metadata: Any = None, sink: str = "", **headers: str) -> Call:
    stub = outputs_pb2_grpc.RunOutputServiceStub(replica.served.channel)
    request = outputs_pb2.DownloadRunOutputRequest(run_id=run_id, sink=sink)
    asked = tuple((f"http-{name.replace('_', '-')}", value) for name, value in headers.items())
    call: Call = stub.DownloadRunOutput(
        request, metadata=(*(metadata or replica.editor), *asked), timeout=PATIENT
    )
    return call


async def whole(call: Call) -> tuple[bytes, dict[str, Any]]:
    content = b"".join([message.data async for message in call])
    return content, dict(await call.initial_metadata())


async def refusal(call: Call) -> "reasons_pb2.Reason.ValueType":
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await whole(call)
    return from_rpc_error(refused.value).reason


async def running(
    mesh: Cluster, replica: Replica, text: str = DEFINITION, **settings: Any
) -> tuple[str, ScriptedWorker, workers_pb2.Assignment]:
    worker = await mesh.worker(replica)
    run_id = (await replica.run(mesh.metadata.add(text, **settings))).run_id
    return run_id, worker, await worker.next_assignment()


async def landed(mesh: Cluster, replica: Replica) -> str:
    """A run that has landed its output."""
    run_id, worker, work = await running(mesh, replica)
    await worker.finish(work, receipts=[reported(work.ref.fence, sink="out", output=keep(mesh, work))])
    await replica.ended(run_id)
    return run_id


async def test_what_has_landed_is_shown_and_downloaded(mesh: Cluster, replica: Replica) -> None:
    run_id = await landed(mesh, replica)

    (output,) = (await replica.status(run_id)).outputs
    content, headers = await whole(download(replica, run_id))

    assert content == CONTENT
    assert (output.sink, output.format, output.content_type, output.rows) == (
        "out",
        "csv",
        "text/csv; charset=utf-8",
        1,
    )
    assert (output.bytes, output.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert [(column.name, column.type) for column in output.columns] == [("x", "BIGINT")]
    assert output.href == f"/api/v1/runs/{run_id}/output?sink=out"
    assert headers["http-status"] == "200"
    assert headers["http-content-length"] == str(len(CONTENT))
    assert headers["http-etag"] == f'"{output.sha256}"'
    assert headers["http-content-disposition"] == f'attachment; filename="out-{run_id}.csv"'


async def test_a_part_is_sent_alone(mesh: Cluster, replica: Replica) -> None:
    run_id = await landed(mesh, replica)

    content, headers = await whole(download(replica, run_id, range="bytes=1000000-1000009", sink="out"))

    assert content == CONTENT[1_000_000:1_000_010]
    assert headers["http-status"] == "206"
    assert headers["http-content-range"] == f"bytes 1000000-1000009/{len(CONTENT)}"
    nothing, headers = await whole(download(replica, run_id, range=f"bytes={len(CONTENT)}-"))
    assert (nothing, headers["http-status"]) == (b"", "416")
    assert headers["http-content-range"] == f"bytes */{len(CONTENT)}"
    nothing, headers = await whole(download(replica, run_id, if_none_match=headers["http-etag"]))
    assert (nothing, headers["http-status"]) == (b"", "304")


async def test_what_has_not_landed_is_a_conflict(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    keep(mesh, work)
    assert await refusal(download(replica, run_id)) == reasons_pb2.REASON_OUTPUT_NOT_LANDED
    await worker.finish(work, "FAILED", error=failure("BROKEN", "DATA"))
    await replica.ended(run_id)
    assert await refusal(download(replica, run_id)) == reasons_pb2.REASON_OUTPUT_NOT_LANDED
    assert not (await replica.status(run_id)).outputs


async def test_what_does_not_exist_is_not_found(mesh: Cluster, replica: Replica) -> None:
    run_id = await landed(mesh, replica)
    not_found = reasons_pb2.REASON_NOT_FOUND
    assert await refusal(download(replica, run_id, sink="rows")) == not_found
    assert await refusal(download(replica, str(uuid7()))) == not_found
    stranger = call_metadata(replica.authority.user("admin", tenant=uuid7()))
    assert await refusal(download(replica, run_id, metadata=stranger)) == not_found
    elsewhere = call_metadata(replica.authority.user("viewer", workspaces=[uuid7()]))
    assert await refusal(download(replica, run_id, metadata=elsewhere)) == not_found
    LocalStore(mesh.artifacts).delete_below(_tenant(mesh))
    assert await refusal(download(replica, run_id)) == not_found


def _tenant(mesh: Cluster) -> str:
    (folder,) = [path for path in mesh.artifacts.iterdir() if not path.name.startswith(".")]
    return folder.name


async def test_what_is_kept_long_enough_is_removed(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    await worker.finish(work, receipts=[reported(work.ref.fence, sink="out", output=keep(mesh, work))])
    await replica.ended(run_id)
    kept = (await replica.run(mesh.metadata.add(DEFINITION))).run_id
    work = await worker.next_assignment()
    await worker.log(work, 0, "from the far future")
    await worker.next_log_ack()
    assert not await replica.parts.sweeper.run_once()
    assert (await whole(download(replica, run_id)))[0] == CONTENT

    replica.travel(91 * 86400)
    assert not await replica.parts.sweeper.run_once()

    assert await refusal(download(replica, run_id)) == reasons_pb2.REASON_NOT_FOUND
    files = [path.name for path in files_below(mesh.artifacts)]
    assert len(files) == 1
    assert files[0].endswith(".ndjson")
    assert (await replica.status(kept)).run_id == kept


async def test_of_several_outputs_one_must_be_named(mesh: Cluster, replica: Replica) -> None:
    run_id, _, _ = await running(mesh, replica, TWO)
    assert await refusal(download(replica, run_id)) == reasons_pb2.REASON_INVALID_REQUEST
    assert await refusal(download(replica, run_id, sink="out")) == reasons_pb2.REASON_OUTPUT_NOT_LANDED


async def test_a_file_of_another_tenant_is_not_handed_out(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica)
    forged = workers_pb2.Assignment(tenant=str(uuid7()), pipeline_id=work.pipeline_id, run_id=work.run_id)
    await worker.finish(work, receipts=[reported(work.ref.fence, sink="out", output=keep(mesh, forged))])
    await replica.ended(run_id)
    assert await refusal(download(replica, run_id)) == reasons_pb2.REASON_NOT_FOUND


async def test_the_attempt_that_follows_is_told_what_has_landed(mesh: Cluster, replica: Replica) -> None:
    run_id, worker, work = await running(mesh, replica, TWO, max_retries=1, retry_delay_seconds=1)
    kept = keep(mesh, work)
    await worker.finish(
        work,
        "FAILED",
        error=failure("GONE", "TRANSIENT"),
        receipts=[reported(work.ref.fence, sink="out", output=kept)],
    )
    await worker.next_ack()
    replica.travel(3)

    again = await worker.next_assignment()

    (known,) = again.landed
    assert (known.sink, known.fence, known.output) == ("out", work.ref.fence, kept)
    late = keep(mesh, work, b"late")
    await worker.finish(work, receipts=[reported(work.ref.fence, sink="out", output=late)])
    await worker.next_ack()
    (shown,) = (await replica.status(run_id)).outputs
    assert shown.sha256 == kept.sha256


def with_output(run: Run) -> Run:
    output = StoredOutput("t/p/r/outputs/x", "csv", 1, "ab", (("x", "BIGINT"),))
    result = replace(failed(ErrorClass.DATA), receipts=(receipt(run, output=output),))
    return finish(run, run.stages[0].id, WORKER, 1, result, at(1))


def test_a_run_that_is_tried_again_keeps_the_outputs_of_the_first() -> None:
    run = with_output(leased(recipe((), (0,))))
    order = retry_order(run, run_id=uuid7(), stage_ids=[uuid7(), uuid7()], triggered_by="bob")

    again = accept(order, NOW)

    assert again.outputs == run.outputs
    assert again.outputs


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "selection"),
        [
            ("", Selection(200, 0, 10)),
            ("bytes=0-3", Selection(206, 0, 4)),
            ("bytes=4-", Selection(206, 4, 6)),
            ("bytes=8-100", Selection(206, 8, 2)),
            ("bytes=-3", Selection(206, 7, 3)),
            ("bytes=-30", Selection(206, 0, 10)),
            ("BYTES=0-0", Selection(206, 0, 1)),
            ("bytes=10-", Selection(416, 0, 0)),
            ("bytes=-0", Selection(416, 0, 0)),
            ("bytes=5-4", Selection(200, 0, 10)),
            ("bytes=0-1,3-4", Selection(200, 0, 10)),
            ("lines=0-1", Selection(200, 0, 10)),
            ("bytes=٣-٤", Selection(200, 0, 10)),
        ],
    )
    def test_a_single_range_is_understood(self, wanted: str, selection: Selection) -> None:
        assert select(10, '"a"', wanted=wanted) == selection

    def test_an_empty_file_has_no_parts(self) -> None:
        assert select(0, '"a"', wanted="bytes=0-").status == 416
        assert select(0, '"a"', wanted="bytes=-5").status == 416
        assert select(0, '"a"') == Selection(200, 0, 0)

    def test_conditions_come_first(self) -> None:
        assert select(10, '"a"', none_match='"b", W/"a"', wanted="bytes=0-1").status == 304
        assert select(10, '"a"', none_match="*").status == 304
        assert select(10, '"a"', none_match='"b"', wanted="bytes=0-1", if_range='"a"').status == 206
        assert select(10, '"a"', wanted="bytes=0-1", if_range='"b"').status == 200
        assert select(10, '"a"', wanted="bytes=0-1", if_range='W/"a"').status == 200

    @given(st.integers(0, 10**12), st.text(max_size=30))
    def test_no_text_leads_outside_the_file(self, size: int, wanted: str) -> None:
        for text in (wanted, f"bytes={wanted}"):
            found = select(size, '"a"', wanted=text)
            assert 0 <= found.start <= found.start + found.length <= size
