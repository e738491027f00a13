"""Reports: pages, data and figures as a pure function of results."""

from rankopt.report.headline import headline
from rankopt.report.write import write_comparison, write_report

__all__ = ["headline", "write_comparison", "write_report"]
