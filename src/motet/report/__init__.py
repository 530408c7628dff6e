"""The report on a run: report.html for a person, card.md for a model hub, and the table for a terminal."""

from motet.report._summary import summary_table
from motet.report._write import write_report

__all__ = ["summary_table", "write_report"]
