"""Reports: runs, evaluations, comparisons and maps as one self-contained HTML file."""

from tilth.reporting.inputs import MapInput, ReportInput
from tilth.reporting.render import build_report

__all__ = ["MapInput", "ReportInput", "build_report"]
