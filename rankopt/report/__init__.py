"""Reports: pages, data and figures as a pure function of results."""

from rankopt.report.write import write_report

__all__ = ["write_report"]
