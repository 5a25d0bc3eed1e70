"""Tables, figures and the Markdown report of an evaluation."""

from meta_training.reports.report import write_report

__all__ = ["write_report"]
