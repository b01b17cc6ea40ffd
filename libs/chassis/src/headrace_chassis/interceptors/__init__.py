"""What every RPC passes through, one file each.

They are no `grpc.aio` interceptors: those look a handler up anew for every call. Here each is a function from
an RPC's facts and its inner handler to an outer handler, and the chain is composed once per RPC when the
server starts. All four kinds of RPC have one shape, since a streamed answer is written to the call's context:
so a stream pays for the chain once and not per message.
"""

from headrace_chassis.interceptors.chain import Call, Handler, Interceptor, compose

__all__ = ["Call", "Handler", "Interceptor", "compose"]
