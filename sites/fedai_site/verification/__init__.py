"""A second, independent reader of de-identified DICOM files.

It shares no code with the de-identification: its own parser of the bytes, its own copy of the Standard's
table, its own search for what the site knows of its patients.
"""

from fedai_site.verification.findings import Finding, Findings, Picture, Severity
from fedai_site.verification.folder import verify
from fedai_site.verification.report import summary, summary_lines, write_report

__all__ = ["Finding", "Findings", "Picture", "Severity", "summary", "summary_lines", "verify", "write_report"]
