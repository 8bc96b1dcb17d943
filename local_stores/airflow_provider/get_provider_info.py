"""What Airflow's provider manager learns about this distribution. Imports nothing, because every component calls it."""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_INTEGRATION = "Comity"


def _option(description: str, default: str, kind: str = "float") -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": None,
        "default": default,
    }


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form of Airflow's `provider_info.schema.json`.

    `package-name` equals the distribution's name: a mismatch makes Airflow drop every provider it found.
    """
    return {
        "package-name": "comity",
        "name": "Comity",
        "description": "Group reports across borders while records stay in the country they were collected in.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "tags": ["service"],
            }
        ],
        "hooks": [
            {"integration-name": _INTEGRATION, "python-modules": ["local_stores.airflow_provider.hooks"]},
        ],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": ["local_stores.airflow_provider.triggers"]},
        ],
        "bundles": [
            {"integration-name": _INTEGRATION, "python-modules": ["local_stores.airflow_provider.bundle"]},
        ],
        "connection-types": [
            {
                "connection-type": "comity_sftp",
                "hook-class-name": "local_stores.airflow_provider.hooks.InboxHook",
                "hook-name": "Comity operator (SFTP)",
            }
        ],
        "config": {
            "comity": {
                "description": "How tasks of Comity wait and retry.",
                "options": {
                    "retries": _option("Retries of a task after transient errors.", "6", "integer"),
                    "retry_delay_s": _option("First delay before a retry, in seconds; it doubles.", "60"),
                    "max_retry_delay_s": _option("Longest delay before a retry, in seconds.", "1800"),
                    "poll_first_s": _option("First pause between two looks of a waiting task, in seconds.", "15"),
                    "poll_max_s": _option("Longest pause between two looks of a waiting task, in seconds.", "300"),
                    "wait_days": _option("Days after which a waiting task gives up.", "60"),
                },
            }
        },
    }
