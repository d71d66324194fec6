"""The audit of the dependencies can find something, and says so when it could not look."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests import audit

HASH = " \\\n    --hash=sha256:" + "0" * 64


@contextmanager
def advisories(known: dict[str, str]) -> Iterator[str]:
    """A service of the one form that OSV has, which knows of these packages."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            names = [query["package"]["name"] for query in queries if query["package"]["ecosystem"] == "PyPI"]
            results = [{"vulns": [{"id": known[name]}]} if name in known else {} for name in names]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def test_a_known_vulnerability_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with advisories({"pyyaml": "GHSA-1"}) as service:
        assert audit.main(service) == 1
    assert "pyyaml" in capsys.readouterr().err
    with advisories({}) as service:
        assert audit.main(service) == 0
    assert capsys.readouterr().err == ""


def test_a_service_that_cannot_be_asked_is_no_failure_but_loud(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main("http://127.0.0.1:9/") == 0
    assert "KNOWN VULNERABILITIES WERE NOT LOOKED UP" in capsys.readouterr().err


def test_what_is_not_as_locked_is_told() -> None:
    locked = audit.pins(f"one==1.0{HASH}\ntwo_b==2.0 ; python_version < '3.14'{HASH}{HASH}\n    # via one\n")
    assert locked == {"one": "1.0", "two-b": "2.0"}
    assert list(audit.differing(locked, {"one": "1.0", "pip": "23"})) == []
    assert list(audit.differing(locked, {"one": "1.1", "three": "3"})) == [
        "one 1.1 is installed, 1.0 is locked",
        "three 3 is installed, nothing is locked",
    ]
    with pytest.raises(ValueError, match="three"):
        audit.pins(f"one==1.0{HASH}\nthree==3.0\n")


def test_a_changed_file_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "one-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.0\n")
    (folder / "RECORD").write_text("one.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    (tmp_path / "one.py").write_bytes(b"")
    assert list(audit.changed(PathDistribution(folder))) == []
    (tmp_path / "one.py").write_bytes(b"evil\n")
    assert len(list(audit.changed(PathDistribution(folder)))) == 1
