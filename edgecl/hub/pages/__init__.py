"""The operator's page: devices, updates and why each was taken or refused, models with their accuracy, rollback. No script runs
in the browser, nothing is fetched from elsewhere, and every change is a form with a token of its session."""

from edgecl.hub.pages.routes import make_pages
from edgecl.hub.pages.source import AuditRow, ClassRow, DeviceRow, MergeRow, ModelRow, Source, UpdateRow

__all__ = ["AuditRow", "ClassRow", "DeviceRow", "MergeRow", "ModelRow", "Source", "UpdateRow", "make_pages"]
