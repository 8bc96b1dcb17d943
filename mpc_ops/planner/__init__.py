"""Compiles a report (SQL and terms) into a calculation plan. Needs the extra `planner`; operators never import it."""

from __future__ import annotations

from mpc_ops.planner.compile import compile_report
from mpc_ops.planner.terms import ReportTerms, read_terms

__all__ = ["ReportTerms", "compile_report", "read_terms"]
