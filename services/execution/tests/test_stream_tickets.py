"""One-time tickets: who gets one, what it opens, and that it does so once."""

import asyncio
from typing import Any

import grpc
import pytest
from headrace.execution.v1 import runs_pb2, stream_tickets_pb2, stream_tickets_pb2_grpc
from headrace_chassis.channels import call_metadata
from headrace_chassis.errors import HeadraceError, from_rpc_error
from headrace_chassis.ids import uuid7
from headrace_chassis.testing.authority import TENANT
from headrace_chassis.verification import TokenVerifier
from headrace_execution.domain.tickets import ticket_hash

from .support import NOOP, WORKSPACE, Cluster, Replica, state_of
from .test_watching import watch


class Office:
    """What makes and takes tickets at a replica."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.stub: stream_tickets_pb2_grpc.StreamTicketServiceAsyncStub = (
            stream_tickets_pb2_grpc.StreamTicketServiceStub(replica.served.channel)
        )

    async def make(self, run: str, **more: Any) -> str:
        token = self.replica.authority.user("viewer", **more)
        request = stream_tickets_pb2.CreateStreamTicketRequest(run_id=run)
        return (await self.stub.CreateStreamTicket(request, metadata=call_metadata(token))).ticket

    async def redeem(self, run: str, ticket: str) -> str:
        request = stream_tickets_pb2.RedeemStreamTicketRequest(run_id=run, ticket=ticket)
        return (await self.stub.RedeemStreamTicket(request)).token


async def refused(call: Any) -> HeadraceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


@pytest.fixture
async def run(mesh: Cluster, replica: Replica) -> str:
    return (await replica.run(mesh.metadata.add(NOOP))).run_id


async def test_a_ticket_opens_the_stream_of_its_run_for_its_maker(replica: Replica, run: str) -> None:
    office = Office(replica)
    ticket = await office.make(run, subject="bob", workspaces=[WORKSPACE])
    token = await office.redeem(run, ticket)
    principal = await TokenVerifier(replica.authority.auth_settings()).verify(token)

    async with watch(replica, run, token) as watching:
        state = await watching.next()

    assert (state.run_id, state_of(state)) == (run, "PENDING")
    assert (principal.subject, principal.tenant) == ("bob", TENANT)
    assert principal.workspaces == frozenset({WORKSPACE})


async def test_it_opens_nothing_else(mesh: Cluster, replica: Replica, run: str) -> None:
    office = Office(replica)
    other = (await replica.run(mesh.metadata.add(NOOP))).run_id
    token = await office.redeem(run, await office.make(run))

    async with watch(replica, other, token) as watching:
        assert (await watching.error()).code == "NOT_FOUND"
    status = replica.runs.GetRunStatus(
        runs_pb2.GetRunStatusRequest(run_id=run), metadata=call_metadata(token)
    )
    assert (await refused(status)).code == "ROLE_REQUIRED"
    request = stream_tickets_pb2.CreateStreamTicketRequest(run_id=run)
    another = office.stub.CreateStreamTicket(request, metadata=call_metadata(token))
    assert (await refused(another)).code == "ROLE_REQUIRED"


async def test_of_many_who_show_it_one_gets_in(mesh: Cluster, replica: Replica, run: str) -> None:
    offices = [Office(replica), Office(await mesh.replica())]
    ticket = await offices[0].make(run)

    async def attempt(number: int) -> str:
        try:
            return await offices[number % 2].redeem(run, ticket) and "in"
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).code

    came = await asyncio.gather(*(attempt(number) for number in range(20)))

    assert sorted(came) == ["UNAUTHENTICATED"] * 19 + ["in"]


async def test_what_is_not_valid_is_refused_always_alike(replica: Replica, run: str) -> None:
    office = Office(replica)
    elsewhere, late = await office.make(run), await office.make(run)
    refusals = [
        await refused(office.redeem(run, "x" * 43)),
        await refused(office.redeem(str(uuid7()), elsewhere)),
    ]
    refusals.append(await refused(office.redeem(run, elsewhere)))  # spent on the wrong run
    replica.travel(31)
    refusals.append(await refused(office.redeem(run, late)))

    assert {(error.code, error.message) for error in refusals} == {
        ("UNAUTHENTICATED", "the ticket is not valid; make a new one")
    }


async def test_only_who_may_see_a_run_gets_a_ticket_for_it(replica: Replica, run: str) -> None:
    office = Office(replica)
    strangers = [office.make(run, tenant=uuid7()), office.make(run, workspaces=[uuid7()])]

    assert {(await refused(stranger)).code for stranger in strangers} == {"NOT_FOUND"}
    assert (await refused(office.make(str(uuid7())))).code == "NOT_FOUND"


async def test_the_token_lives_no_longer_than_its_makers(replica: Replica, run: str) -> None:
    office = Office(replica)
    short = await office.redeem(run, await office.make(run, lifetime=100))
    long = await office.redeem(run, await office.make(run, lifetime=100_000))
    verifier = TokenVerifier(replica.authority.auth_settings())
    lives = [(await verifier.verify(token)).expires_at for token in (short, long)]

    assert 3000 < lives[1] - lives[0] <= 3600


async def test_tickets_that_nobody_used_are_swept_up(replica: Replica, run: str) -> None:
    office = Office(replica)
    old = [await office.make(run) for _ in range(3)]
    replica.travel(31)
    await office.make(run)
    replica.travel(-31)

    async def take(digest: bytes) -> object:
        return await replica.parts.store.run(lambda tx: tx.tickets.take(digest))

    assert [await take(ticket_hash(ticket)) for ticket in old] == [None] * 3
