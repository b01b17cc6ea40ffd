"""WorkflowService."""

from uuid import UUID

import grpc
from headrace.execution.v1 import workflow_pb2, workflow_pb2_grpc
from headrace_chassis.idempotency import current_key
from headrace_chassis.identity import current_principal

from headrace_execution import convert_workflow
from headrace_execution.signalling import Said, SignalReceiver
from headrace_execution.store.port import Store
from headrace_execution.visibility import visible_run

Context = grpc.aio.ServicerContext[object, object]


class WorkflowServicer(workflow_pb2_grpc.WorkflowServiceServicer):
    """Shows what runs wait for, and takes signals."""

    def __init__(self, store: Store, receiver: SignalReceiver) -> None:
        self._store = store
        self._receiver = receiver

    async def GetWorkflowStatus(
        self, request: workflow_pb2.GetWorkflowStatusRequest, context: Context
    ) -> workflow_pb2.WorkflowStatus:
        """See the contract."""
        return convert_workflow.workflow(
            await visible_run(self._store, current_principal(), UUID(request.run_id))
        )

    async def SignalWorkflow(
        self, request: workflow_pb2.SignalWorkflowRequest, context: Context
    ) -> workflow_pb2.SignalWorkflowResponse:
        """See the contract."""
        principal = current_principal()
        run = await visible_run(self._store, principal, UUID(request.run_id))
        said = Said(run.id, request.signal_name, request.data, principal.acts_as, current_key())
        return await self._receiver.receive(said)
