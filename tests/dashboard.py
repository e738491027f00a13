"""What optuna-dashboard's own application answers, without a server."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest


def study_detail(url: str) -> Any:
    """The only study of a storage as the dashboard's pages get it; skips the test where it is not installed."""
    app = pytest.importorskip("optuna_dashboard").wsgi(url)
    listed = _get(app, "/api/studies")
    (row,) = listed.get("studies") or listed["study_summaries"]
    return _get(app, f"/api/studies/{row['study_id']}") | {"name": row["study_name"]}


def _get(app: Any, path: str) -> Any:
    status: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    body = b"".join(app(environ, lambda code, headers, info=None: status.append(code)))
    assert status[0].startswith("200"), (path, status, body[:300])
    return json.loads(body)
