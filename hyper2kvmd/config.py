"""The daemon's configuration: every key optional, defaults for a host installed from the package."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from hyper2kvmd.model import Frozen

DEFAULT_PATH = Path("/etc/hyper2kvm/hyper2kvmd.yaml")
DEFAULT_HELPER = ("sudo", "-n", "/usr/libexec/hyper2kvm/helper")


class Retry(Frozen):
    """How often a job that failed for a passing reason is tried, and how long between tries (seconds)."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    delay: float = Field(default=60.0, ge=0)
    backoff: float = Field(default=2.0, ge=1)


class Retention(Frozen):
    """Days that leftovers are kept before `h2kvmctl gc` removes them."""

    conversions: float = Field(default=1.0, ge=0)
    spool: float = Field(default=90.0, ge=0)
    jobs: float = Field(default=365.0, ge=0)


class DaemonConfig(Frozen):
    spool_dir: Path = Path("/var/spool/hyper2kvm")
    state_dir: Path = Path("/var/lib/hyper2kvm")
    conversion_dir: Path = Path("/var/lib/hyper2kvm/conversions")
    output_dir: Path = Path("/var/lib/hyper2kvm/images")
    database_url: str = ""
    """SQLAlchemy URL; by default SQLite in `state_dir`."""
    control_socket: Path = Path("/run/hyper2kvm/control.sock")
    metrics_listen: str = Field(default="127.0.0.1:9180", pattern=r"^(\[[0-9A-Fa-f:]+\]|[^:]+):\d{1,5}$")
    max_concurrent_jobs: int = Field(default=2, ge=1, le=64)
    allowed_source_dirs: tuple[Path, ...] = ()
    allowed_output_dirs: tuple[Path, ...] = ()
    space_reserve: str = Field(default="5%", pattern=r"^\d+(\.\d+)?%?$")
    retry: Retry = Retry()
    retention: Retention = Retention()
    helper: tuple[str, ...] = Field(default=DEFAULT_HELPER, min_length=1)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @model_validator(mode="before")
    @classmethod
    def _database_in_state_dir(cls, values: dict[str, object]) -> dict[str, object]:
        if not values.get("database_url"):
            state_dir = values.get("state_dir", cls.model_fields["state_dir"].default)
            return {**values, "database_url": f"sqlite:///{state_dir}/jobs.sqlite3"}
        return values
