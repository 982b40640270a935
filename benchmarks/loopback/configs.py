"""The configurations of the proxies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

NGINX = """
daemon off;
worker_processes 2;
user root;  # if root starts nginx, the workers must run as root too, to write into the folder; otherwise ignored
pid %{folder}/nginx.pid;
error_log %{folder}/error.log;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path %{folder}/body;
    proxy_temp_path %{folder}/proxy;
    fastcgi_temp_path %{folder}/fastcgi;
    uwsgi_temp_path %{folder}/uwsgi;
    scgi_temp_path %{folder}/scgi;
    upstream emulator {
        server 127.0.0.1:%{emulator};
        keepalive 32;
        keepalive_timeout 3s;  # shorter than the emulator's, which is 5 s
    }
    %{http}
    server {
        listen 127.0.0.1:%{proxy} %{listen};
        %{server}
        location / {
            proxy_pass http://emulator;
            %{location}
        }
    }
}
"""
NGINX_TLS = "ssl_certificate %{certificate}; ssl_certificate_key %{certificate};"
NGINX_KEEP = 'proxy_http_version 1.1; proxy_set_header Connection "";'
"""Without this, nginx sends each request as HTTP/1.0 on a connection of its own."""

HAPROXY = """
global
    nbthread 1
    hard-stop-after 2s
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    %{defaults}
frontend proxy
    bind 127.0.0.1:%{proxy} %{bind}
    %{frontend}
    default_backend emulator
backend emulator
    http-reuse always
    server emulator 127.0.0.1:%{emulator} pool-purge-delay 2s
"""
"""Connections are kept on both sides by default."""


class _Slots(Template):
    delimiter = "%"


@dataclass(frozen=True, eq=False)
class Proxy:
    """
    A proxy before an emulator.

    Attributes:
        program: What is run.
        template: Its configuration, with slots.
        parts: What comes into some of the slots. They may have slots themselves.
    """

    program: str
    template: str
    parts: Mapping[str, str]

    def config(self, **places: str | int) -> str:
        """Return its configuration, with the ports of *proxy* and *emulator*, the *folder*, and the *certificate* if any."""
        return _Slots(_Slots(self.template).safe_substitute(self.parts)).substitute(places)

    def command(self, config: Path) -> list[str]:
        """Return the command that runs it in the foreground, as a first process that starts and watches the workers."""
        if self.program == "nginx":
            return ["nginx", "-e", str(config.with_name("start.log")), "-c", str(config)]
        return ["haproxy", "-W", "-f", str(config)]


def nginx(location: str = "", *, http: str = "", server: str = "", tls: str = "", keep: bool = True) -> Proxy:
    """Return nginx with directives. With *tls*, it speaks HTTP/1.1 or HTTP/2 ("http/1.1", "h2") over TLS."""
    return Proxy(
        "nginx",
        NGINX,
        {
            "http": http,
            "listen": {"": "", "http/1.1": "ssl", "h2": "ssl http2"}[tls],
            "server": f"{server} {NGINX_TLS if tls else ''}",
            "location": f"{location} {NGINX_KEEP if keep else ''}",
        },
    )


def haproxy(*frontend: str, defaults: tuple[str, ...] = (), tls: str = "") -> Proxy:
    """Return HAProxy with lines of its configuration, and *tls* as for nginx."""
    return Proxy(
        "haproxy",
        HAPROXY,
        {
            "defaults": "\n    ".join(defaults),
            "bind": f"ssl crt %{{certificate}} alpn {tls}" if tls else "",
            "frontend": "\n    ".join(frontend),
        },
    )


def most_requests(rate: int, window: int, rule: str) -> tuple[str, ...]:
    """Return the lines with which HAProxy applies a rule to requests beyond so many in a window of so many seconds."""
    return (
        f"stick-table type ip size 1k expire 1m store http_req_rate({window}s)",
        "http-request track-sc0 src",
        # Refused requests count, too: a request is counted before it is judged.
        f"http-request {rule} if {{ sc_http_req_rate(0) gt {rate * window} }}",
    )
