"""The settings of the scheduler: environment variables, read once."""

from headrace_chassis.settings import ServiceSettings
from pydantic import Field


class SchedulerSettings(ServiceSettings):
    """What the scheduler needs beside what every service needs."""

    metadata_target: str = Field(description="Where metadata is served: host:port, or dns:///name:port.")
    execution_target: str = Field(description="host:port of the execution service, or dns:///name:port.")
    late_grace_seconds: float = Field(
        3600.0,
        ge=0,
        le=30 * 86400,
        description="How late the latest tick of a schedule may be, after Headrace was down, and still start "
        "its run with SKIP_TO_CURRENT.",
    )
    start_timeout_seconds: float = Field(
        10.0,
        ge=0.5,
        le=60,
        description="How long execution may take to decide on a batch of starts; after half as long again "
        "another replica may ask.",
    )
    tick_retention_days: float = Field(
        90.0, ge=1, le=3650, description="How long the decisions about ticks are kept, in days."
    )
