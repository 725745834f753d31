"""Reports: runs, evaluations, comparisons and maps as one self-contained HTML file."""

from tilth.errors import needs_extra

with needs_extra("report", "reports"):
    # jinja2 brings markupsafe, which nearly every module here imports; here at the door one message stands for all.
    import jinja2  # noqa: F401 - its absence is told here, before a room needs it

from tilth.reporting.inputs import MapInput, ReportInput
from tilth.reporting.render import build_report

__all__ = ["MapInput", "ReportInput", "build_report"]
