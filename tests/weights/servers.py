"""Servers on this machine that behave, and misbehave, like those from which weights are downloaded."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What a server holds and how it answers.

    Attributes:
      files: path -> content.
      headers: path -> further headers of its answers.
      statuses: path -> list of statuses of the next answers, instead of the file.
      cuts: path -> list of byte counts after which the next answers break off.
      requests: (method, path, Range header) of every request.
    """

    def __init__(self):
        self.url = ""
        self.files = {}
        self.headers = {}
        self.statuses = {}
        self.cuts = {}
        self.requests = []
        self.tagged = True


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def log_message(self, *_):
        """Requests are kept, not printed."""

    def _answer(self, body):
        site, path = self.site, self.path.partition("?")[0]
        site.requests.append((self.command, path, self.headers.get("Range")))
        status = site.statuses[path].pop(0) if site.statuses.get(path) else 200
        content = site.files.get(path)
        if content is None or status != 200:
            status = 404 if content is None and status == 200 else status
            return self._send(status, b"", site.headers.get(path, {}), body)
        headers = dict(site.headers.get(path, {}))
        tag = f'"{hashlib.sha1(content).hexdigest()}"'
        if site.tagged:
            headers.setdefault("ETag", tag)
        start = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        if start != "0" and self.headers.get("If-Range") in (None, headers.get("ETag")):
            if int(start) >= len(content):
                return self._send(416, b"", {}, body)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self._send(206, content[int(start) :], headers, body, path)
        return self._send(200, content, headers, body, path)

    def _send(self, status, content, headers, body, path=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if self.site.cuts.get(path):
            self.wfile.write(content[: self.site.cuts[path].pop(0)])
            self.close_connection = True
        else:
            self.wfile.write(content)


@contextmanager
def serve():
    """A running server; what it holds can be changed at any time."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def publish(site, name, files, revision="main"):
    """Put a repository on a server, with the answers that `snapshot_download` asks for."""
    commit = hashlib.sha1(name.encode()).hexdigest()
    info = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files], "private": False}
    tree = [
        {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        for file, content in files.items()
    ]
    for path in (f"/api/models/{name}", f"/api/models/{name}/revision/{revision}"):
        site.files[path] = json.dumps(info).encode()
    site.files[f"/api/models/{name}/tree/{commit}"] = json.dumps(tree).encode()
    for file, content in files.items():
        path = f"/{name}/resolve/{commit}/{file}"
        site.files[path] = content
        site.headers[path] = {"X-Repo-Commit": commit}
