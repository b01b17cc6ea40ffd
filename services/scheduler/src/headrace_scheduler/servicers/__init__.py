"""The RPCs of the scheduler: each converts, calls, and converts back."""

from typing import Any, TypeAlias

import grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
"""The context of a call. Who calls, and until when, is said by headrace_chassis."""
