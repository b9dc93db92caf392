"""A double of Hasura's engine: HTTP and websockets in a thread, over a real Postgres database.

It answers /v1/metadata, /v1/query, /v2/query, /healthz, /v1/version, /v1alpha1/config, /v1/graphql (an echo; also by
websocket) and /console with upstream's statuses, errors and resource versions. tests/test_hasura_double.py replays
upstream's recorded exchanges against it. What it does not do: run GraphQL, ask remote schemas (all are taken for good),
databases that are not Postgres, and templates of webhooks.
"""

from __future__ import annotations

import asyncio
import json
import threading

from aiohttp import WSMsgType, web

from .hasura_requests import Api, Asker

VERSION = "v2.48.10"
SECRET_HEADERS = ("x-hasura-admin-secret", "x-hasura-access-key")
PROTOCOLS = ("graphql-ws", "graphql-transport-ws")

# As the server's template is (server/src-rsr/console.html), with a script of ours where upstream loads its assets.
CONSOLE = """<html lang="en-us">
  <head>
    <link rel="icon" type="image/png" href="/console/assets/common/favicon.png" />
    <script>
      window.__env = {
        consoleMode: "server",
        consolePath: "%(path)s",
        urlPrefix: "/console",
        isAdminSecretSet: %(is_secret_set)s,
        enableTelemetry: false,
        assetsPath: "https://graphql-engine-cdn.hasura.io/console/assets",
        assetsVersion: "channel/stable/v2.48",
        cdnAssets: %(cdn)s,
        serverVersion: "%(version)s",
        consoleType: "oss",
      };
    </script>
  </head>
  <body>
    <div id="content">Loading...</div>
    %(script)s
  </body>
</html>
"""
# What the console does first (reference 4.3): it asks for the inconsistent metadata with the secret it thinks it has.
SCRIPT = """<script>
      document.title = window.__env.isAdminSecretSet ? "login" : "console";
      const headers = {"content-type": "application/json", "x-hasura-admin-secret": "null"};
      fetch("/v1/metadata", {method: "POST", headers, body: '{"type": "get_inconsistent_metadata", "args": {}}'})
        .then(answer => answer.json()).then(found => {
          document.getElementById("content").textContent = "consistent: " + found.is_consistent;
        });
      const socket = new WebSocket("ws://" + location.host + "/v1/graphql", "graphql-ws");
      const hello = {type: "connection_init", payload: {headers: {"x-hasura-admin-secret": "null"}}};
      socket.onopen = () => socket.send(JSON.stringify(hello));
      socket.onmessage = event => { document.body.dataset.socket = JSON.parse(event.data).type; };
    </script>"""


class Engine:
    """A running double over the database at `url`; use it as a context, or `close` it.

    Arguments: `secret`, the admin secret, None for an engine without one; `env`, the engine's environment variables;
    `console`, whether /console is enabled; `assets`, {path below /console/assets: bytes} of HASURA_GRAPHQL_CONSOLE_
    ASSETS_DIR, None for an engine that has none; `origins`, the CORS domains, None for all; `script`, the console
    page's own; `host` and `port` to listen on. `seen` are the requests that came, as (method, path, headers).
    """

    def __init__(self, url, secret="admin-s3cret", env=None, *, console=True, assets=None, origins=None, script=SCRIPT,
                 host="127.0.0.1", port=0):  # fmt: skip
        self.secret = secret
        self.api = Api(url, env)
        self.seen: list = []
        self.sent = 0  # bytes of /stream so far
        self._console = console
        self._assets = assets
        self._origins = origins
        self._script = script
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(self._application(), handle_signals=False, access_log=None, shutdown_timeout=0.1)
        self.port = self._call(self._listen(host, port))

    @property
    def endpoint(self):
        """Its base address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it; connections are cut off. A second time does nothing."""
        if not self._thread.is_alive():
            return
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def ask(self, request_type, args=None, **more):
        """The answer to one request of /v1/metadata from inside, as (status, document)."""
        body = json.dumps({"type": request_type, "args": {} if args is None else args, **more}).encode()
        return self.api.answer("/v1/metadata", body, Asker())

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self, host, port):
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return self._runner.addresses[0][1]

    def _application(self):
        application = web.Application(middlewares=[self._watch], client_max_size=256 * 1024 * 1024)
        routes = application.router
        for path in ("/v1/metadata", "/v1/query", "/v2/query"):
            routes.add_post(path, self._json_api)
        for path in ("/healthz", "/hasura/healthz"):
            routes.add_get(path, self._health)
        routes.add_get("/v1/version", self._version)
        routes.add_get("/v1alpha1/config", self._config)
        routes.add_post("/v1/graphql", self._graphql)
        for path in ("/v1/graphql", "/v1alpha1/graphql", "/v1beta1/relay"):
            routes.add_get(path, self._socket)
        routes.add_get("/api/rest/stream", self._stream)
        routes.add_get("/", self._root)
        routes.add_get("/console/assets/{path:.*}", self._asset)
        routes.add_get("/console", self._page)
        routes.add_get("/console/{path:.*}", self._page)
        return application

    @web.middleware
    async def _watch(self, request, handler):
        self.seen.append((request.method, request.path_qs, request.headers.copy()))
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            known = {404: ("resource does not exist", "not-found"), 405: ("invalid HTTP method", "method-not-allowed")}
            said, code = known.get(error.status, (error.reason, "unexpected"))
            if error.status < 400:
                raise
            answer = web.json_response({"path": "$", "error": said, "code": code}, status=error.status)
        if not answer.prepared and "Origin" in request.headers:
            answer.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            answer.headers["Access-Control-Allow-Credentials"] = "true"
        return answer

    # Who asks.

    def _asker(self, headers):
        """The Asker, or the error document of a request without the right secret."""
        given = next((headers[name] for name in SECRET_HEADERS if name in headers), None)
        if self.secret is not None and given is None:
            said = "x-hasura-admin-secret/x-hasura-access-key required, but not found"
            return {"path": "$", "error": said, "code": "access-denied"}
        if self.secret is not None and given != self.secret:
            said = 'invalid "x-hasura-admin-secret"/"x-hasura-access-key"'
            return {"path": "$", "error": said, "code": "access-denied"}
        variables = {name.lower(): value for name, value in headers.items() if name.lower().startswith("x-hasura-")}
        return Asker(headers.get("x-hasura-role", "admin"), variables)

    # The routes.

    async def _json_api(self, request):
        asker = self._asker(request.headers)
        if isinstance(asker, dict):
            return web.json_response(asker, status=401)
        body = await request.read()
        work = self._loop.run_in_executor(None, self.api.answer, request.path, body, asker)
        status, document = await work
        return web.json_response(document, status=status)

    async def _health(self, request):
        if not self.api.inconsistent:
            return web.Response(text="OK")
        if request.query.get("strict") == "true":
            return web.Response(text="ERROR: inconsistent objects in schema", status=500)
        return web.Response(text="WARN: inconsistent objects in schema")

    async def _version(self, request):
        return web.json_response({"version": VERSION, "server_type": "ce"})

    async def _config(self, request):
        asker = self._asker(request.headers)
        if isinstance(asker, dict):
            return web.json_response(asker, status=401)
        return web.json_response({
            "version": VERSION, "is_admin_secret_set": self.secret is not None, "is_auth_hook_set": False,
            "console_assets_dir": "/srv/console-assets" if self._assets is not None else None,
        })  # fmt: skip

    async def _graphql(self, request):
        asker = self._asker(request.headers)
        if isinstance(asker, dict):
            return web.json_response({"errors": [{"message": asker["error"], "extensions": asker}]})
        return web.json_response({"data": {"echo": await request.json(), "role": asker.role}})

    async def _root(self, request):
        raise web.HTTPFound("/console")

    async def _page(self, request):
        if not self._console:
            raise web.HTTPNotFound()
        inner = request.match_info.get("path", "")
        page = CONSOLE % {
            "path": f"/console/{inner}" if inner else "/console", "version": VERSION, "script": self._script,
            "is_secret_set": "true" if self.secret is not None else "false",
            "cdn": "true" if self._assets is None else "false",
        }  # fmt: skip
        return web.Response(text=page, content_type="text/html")

    async def _asset(self, request):
        body = (self._assets or {}).get(request.match_info["path"])
        if body is None:
            raise web.HTTPNotFound()
        return web.Response(body=body)

    async def _stream(self, request):
        """`size` bytes in pieces, as a large answer comes; `sent` counts those that the socket has taken."""
        asker = self._asker(request.headers)
        if isinstance(asker, dict):
            return web.json_response(asker, status=401)
        size = int(request.query.get("size", "0"))
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        if request.query.get("length") != "none":
            answer.content_length = size
        await answer.prepare(request)
        piece, self.sent = b"0123456789abcdef" * 4096, 0
        while self.sent < size:
            part = piece[: size - self.sent]
            await answer.write(part)
            self.sent += len(part)
        return answer

    async def _socket(self, request):
        origin = request.headers.get("Origin")
        if self._origins is not None and origin is not None and origin not in self._origins:
            said = "received origin header does not match configured CORS domains"
            return web.json_response({"path": "$", "error": said, "code": "access-denied"}, status=400)
        socket = web.WebSocketResponse(protocols=PROTOCOLS)
        if not socket.can_prepare(request).ok:
            raise web.HTTPNotFound()
        await socket.prepare(request)
        async for message in socket:
            if message.type != WSMsgType.TEXT:
                break
            await socket.send_str(json.dumps(self._heard(json.loads(message.data), request.headers)))
        return socket

    def _heard(self, message, upgrade):
        """The answer to one message; of the headers of both places, those of the upgrade request count more."""
        if message.get("type") == "connection_init":
            told = (message.get("payload") or {}).get("headers", {})
            told = {**{name.lower(): value for name, value in told.items()},
                    **{name.lower(): value for name, value in upgrade.items()}}  # fmt: skip
            asker = self._asker(told)
            if isinstance(asker, dict):
                return {"type": "connection_error", "payload": asker["error"]}
            return {"type": "connection_ack"}
        if message.get("type") == "ping":
            return {"type": "pong"}
        return {"id": message.get("id"), "type": "data", "payload": {"data": {"echo": message.get("payload")}}}
