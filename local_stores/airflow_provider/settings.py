"""Settings of the provider, read from the `[comity]` section of Airflow's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from airflow.configuration import conf

__all__ = ["ProviderSettings"]

_SECTION = "comity"


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """How tasks retry and wait; durations in seconds unless the name says days."""

    retries: int = 6
    retry_delay_s: float = 60.0
    max_retry_delay_s: float = 1800.0
    poll_first_s: float = 15.0
    poll_max_s: float = 300.0
    wait_days: float = 60.0

    @classmethod
    def from_airflow(cls) -> ProviderSettings:
        """Read the section; what is not set keeps the default above."""
        default = cls()
        return cls(
            retries=conf.getint(_SECTION, "retries", fallback=default.retries),
            retry_delay_s=conf.getfloat(_SECTION, "retry_delay_s", fallback=default.retry_delay_s),
            max_retry_delay_s=conf.getfloat(_SECTION, "max_retry_delay_s", fallback=default.max_retry_delay_s),
            poll_first_s=conf.getfloat(_SECTION, "poll_first_s", fallback=default.poll_first_s),
            poll_max_s=conf.getfloat(_SECTION, "poll_max_s", fallback=default.poll_max_s),
            wait_days=conf.getfloat(_SECTION, "wait_days", fallback=default.wait_days),
        )
