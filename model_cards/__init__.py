"""Model cards and publishing: figures and text from a run's files, one-commit pushes to the Hub, content checks."""

from .card import Card, build_card, write_card
from .errors import CardError, PushError
from .exported import export_note
from .figures.feature_figures import feature_figures
from .publish_plan import PlannedFile, PushPlan, plan_push
from .push import PushResult, make_repository, push
from .report.page import Report, write_report
from .verify import Verification, verify_checksums

__all__ = [
    "Card",
    "CardError",
    "PlannedFile",
    "PushError",
    "PushPlan",
    "PushResult",
    "Report",
    "Verification",
    "build_card",
    "export_note",
    "feature_figures",
    "make_repository",
    "plan_push",
    "push",
    "verify_checksums",
    "write_card",
    "write_report",
]
