"""Prints docs/reference/metrics.md from the definitions of the metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hyper2kvmd.daemon.gauges import GAUGES
from hyper2kvmd.daemon.metrics import LAST_TICK, LAST_TICK_MEANING, Metrics

HEADER = """# Metrics

The daemon serves its metrics for Prometheus at `http://METRICS_LISTEN/metrics`. Alerts, a dashboard and the scrape
configuration are in `/usr/share/hyper2kvmd/monitoring`.

- Counters begin at 0 with the daemon. Metrics contain neither names nor paths.
- A histogram has the series `_bucket`, `_sum` and `_count`.
- The label `directory` has the values `conversion`, `output`, `state` and `spool`: the directories of the
  configuration. Directories on the same file system have the same values.
- Each `process_` metric is also served as `hyper2kvm_process_`, the name of earlier versions.

| metric | kind | labels | meaning |
|---|---|---|---|
"""


def markdown() -> str:
    return HEADER + "".join(f"{line}\n" for line in sorted(_lines()))


def _lines() -> Iterator[str]:
    metrics = Metrics()
    for family in metrics.registry.collect():
        if not family.name.startswith("hyper2kvm_process_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield _line(name, family.type, metrics.labels.get(family.name, ()), family.documentation)
    for gauge in GAUGES:
        yield _line(gauge.name, "gauge", gauge.labels, gauge.help)
    yield _line(LAST_TICK, "gauge", (), LAST_TICK_MEANING)


def _line(name: str, kind: str, labels: tuple[str, ...], meaning: str) -> str:
    listed = ", ".join(f"`{label}`" for label in labels)
    return f"| `{name}` | {kind} | {listed} | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
