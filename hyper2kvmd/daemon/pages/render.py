"""Templates become pages here. Every value is escaped, and shown without characters that are not printable."""

from __future__ import annotations

import re
from datetime import datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from hyper2kvmd import units
from hyper2kvmd.daemon.pages.address import MAX_PAGE, PAGE_JOBS, REFRESH
from hyper2kvmd.model.jobs import Job, Sort, State
from hyper2kvmd.start_times import waits_for

if TYPE_CHECKING:
    from jinja2 import Environment

STYLE = resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_COMMAND = re.compile(r"`([^`]*)`")


def page(name: str, **values: Any) -> str:
    """The page of the template `name`.html."""
    return _environment().get_template(f"{name}.html").render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # two MiB, for the first page

    environment = Environment(
        loader=PackageLoader("hyper2kvmd.daemon.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "size": units.size,
        "duration": units.duration,
        "about": units.about,
        "local": units.local_time,
        "capitalized": capitalized,
        "commands": commands,
        "lasted": lasted,
        "waits_for": waits_for,
    }
    environment.globals |= {
        "states": tuple(State),
        "sorts": tuple(Sort),
        "refreshes": REFRESH,
        "page_jobs": PAGE_JOBS,
        "max_page": MAX_PAGE,
    }
    return environment


def printable(value: object) -> object:
    """Text without control characters and without characters that turn the text around."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(letter if letter.isprintable() else REPLACEMENT for letter in value.replace("\n", " "))


def capitalized(text: str) -> str:
    """The text with a capital first letter and no other change, as in `CPUs`."""
    return text[:1].upper() + text[1:]


def commands(text: str) -> Markup:
    """The catalogue's Markdown: words between backticks are commands."""
    return Markup(_COMMAND.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def lasted(job: Job) -> str:
    """From the first start to the end; empty if the job never started."""
    if job.started is None:
        return ""
    end = job.finished or datetime.now(job.started.tzinfo)
    return units.duration(max(0.0, (end - job.started).total_seconds()))
