"""Tables, figures and the Markdown report of an evaluation."""

from meta_training.evaluation.report import write_report

__all__ = ["write_report"]
