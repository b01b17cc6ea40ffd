"""The settings of the scheduler: environment variables, read once."""

from headrace_chassis.settings import ServiceSettings
from pydantic import Field


class SchedulerSettings(ServiceSettings):
    """What the scheduler needs beside what every service needs."""

    metadata_target: str = Field(description="Where metadata is served: host:port, or dns:///name:port.")
    execution_target: str = Field(description="host:port of the execution service, or dns:///name:port.")
