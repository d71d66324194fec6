"""The verbs of the queue, by the part of a job's life in which they are used."""

from __future__ import annotations

from hyper2kvmd.jobs.attempts import Attempts
from hyper2kvmd.jobs.endings import Endings
from hyper2kvmd.jobs.intake import Intake
from hyper2kvmd.jobs.lists import Lists
from hyper2kvmd.jobs.moves import Moves
from hyper2kvmd.jobs.notices import Notices
from hyper2kvmd.jobs.operations import Operations
from hyper2kvmd.jobs.questions import Questions
from hyper2kvmd.jobs.workload import Workload


class Store(Intake, Attempts, Endings, Operations, Moves, Lists, Questions, Workload, Notices):
    """See `Transactions` for what every method may raise."""
