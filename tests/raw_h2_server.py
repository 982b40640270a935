"""
HTTP/2 for the raw server: a behaviour sends exactly the frames that a test gives it, also those that no server may send.

It has no state machine: hyperframe and hpack, which h2 is built on, write and read the frames. For a test:

    raw_server.behave(speaks_h2(answers_pages))      # plain HTTP/2, for a client with http1=False, http2=True
    raw_server.use_tls(h2_context(authority))        # or over TLS, for a client with http2=True and an https:// address
"""

import json
import ssl
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from raw_server import Behaviour, Connection, listing

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEAD = 9
_LARGEST_FRAME = 16_384

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x0, 0x1, 0x2, 0x7, 0x8, 0xB
"""Error codes (RFC 9113, section 7)."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Request:
    """A request, as its header block came."""

    stream: int
    headers: dict[str, str]

    @property
    def params(self) -> dict[str, str]:
        """The parameters of its query string."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.headers[":path"]).query).items()}


class H2Connection:
    """
    One HTTP/2 connection; the behaviour of the test talks through it.

    Attributes:
        raw: The connection below, to send bytes that are no frames, to reset it, and to wait for the end of the test.
        requests: The requests that came.
        resets: The streams that the client has reset, and its error codes.
        window: Bytes of DATA that the client takes on the whole connection.
        stream_windows: Bytes that it takes on each stream.
    """

    def __init__(self, raw: Connection) -> None:
        self.raw = raw
        self.requests: list[Request] = []
        self.resets: dict[int, int] = {}
        self.window = 65_535
        self.stream_windows: dict[int, int] = {}
        self._initial_window = 65_535
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._received = b""
        self._block = b""
        self._is_open = False

    # --- what comes ---

    def read_request(self) -> Request | None:
        """Return the next request; `None` at the end of the connection."""
        seen = len(self.requests)
        self.read_until(lambda: len(self.requests) > seen)
        return self.requests[seen] if len(self.requests) > seen else None

    def read_until(self, condition: Callable[[], bool]) -> bool:
        """Read frames until *condition* is true; return false if the connection ends before."""
        while not condition():
            if not self.read_frame():
                return False
        return True

    def read_frame(self) -> bool:
        """Read one frame; return false at the end of the connection."""
        if not self._is_open:
            if self._take(len(_PREFACE)) != _PREFACE:
                return False
            self._is_open = True
        head = self._take(_FRAME_HEAD)
        if len(head) < _FRAME_HEAD:
            return False
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(self._take(length)))
        self._receive(frame)
        return True

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            more = self.raw.receive()
            if not more:
                return b""
            self._received += more
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self, frame: Frame) -> None:
        match frame:
            case SettingsFrame() if "ACK" not in frame.flags:
                self._initial_window = frame.settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._initial_window)
                self.send_frames(SettingsFrame(flags=["ACK"]))
            case PingFrame() if "ACK" not in frame.flags:
                self.send_frames(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
            case WindowUpdateFrame(stream_id=0):
                self.window += frame.window_increment
            case WindowUpdateFrame():
                self.stream_windows[frame.stream_id] += frame.window_increment
            case RstStreamFrame():
                self.resets[frame.stream_id] = frame.error_code
            case HeadersFrame() | ContinuationFrame():
                self._block += frame.data
                if "END_HEADERS" in frame.flags:
                    block, self._block = self._block, b""
                    self.stream_windows[frame.stream_id] = self._initial_window
                    self.requests.append(Request(frame.stream_id, dict(self._decoder.decode(block))))
            case _:
                pass

    # --- what goes ---

    def send_frames(self, *frames: Frame) -> None:
        """Send frames, all in one write."""
        self.raw.send(b"".join(frame.serialize() for frame in frames))

    def start(self, **settings: int) -> None:
        """Send SETTINGS, such as `MAX_CONCURRENT_STREAMS=1`: at the beginning, and later to change them."""
        self.send_frames(settings_frame(**settings))

    def head(self, stream: int, headers: Headers, *, ends: bool = False, **frame: Any) -> HeadersFrame:
        """Return a HEADERS frame. The client must get the header blocks in the order in which they were made."""
        flags = ["END_HEADERS", *(["END_STREAM"] if ends else [])]
        return HeadersFrame(stream, self._encoder.encode(headers), flags=flags, **frame)

    def response(
        self,
        stream: int,
        content: Any = None,
        *,
        status: int = 200,
        headers: Headers = (),
        body: bytes | None = None,
    ) -> list[Frame]:
        """Return the frames of a complete response: JSON, or *body*."""
        payload = json.dumps(content).encode() if body is None else body
        head = self.head(stream, [(":status", str(status)), ("content-type", "application/json"), *headers])
        return [head, *data_frames(stream, payload)]

    def respond(self, stream: int, content: Any = None, **options: Any) -> None:
        """Send a complete response at once, without regard to the flow-control windows: see `response`."""
        self.send_frames(*self.response(stream, content, **options))

    def send_data(self, stream: int, body: bytes, *, ends: bool = True) -> bool:
        """
        Send DATA as fast as the client's windows allow; return false if the client has reset the stream, or gone.

        Frames of the client are read only when its window is used up.
        """
        sent = 0
        while sent < len(body):
            if not self.read_until(lambda: stream in self.resets or min(self.window, self.stream_windows[stream]) > 0):
                return False
            if stream in self.resets:
                return False
            size = min(len(body) - sent, self.window, self.stream_windows[stream], _LARGEST_FRAME)
            chunk, sent = body[sent : sent + size], sent + size
            self.window -= size
            self.stream_windows[stream] -= size
            self.send_frames(DataFrame(stream, chunk, flags=["END_STREAM"] if ends and sent == len(body) else []))
        return True

    def reset(self, stream: int, code: int = CANCEL) -> None:
        """Send RST_STREAM."""
        self.send_frames(RstStreamFrame(stream, error_code=code))

    def go_away(self, last_stream: int, code: int = NO_ERROR) -> None:
        """Send GOAWAY: streams above *last_stream* are not processed."""
        self.send_frames(GoAwayFrame(last_stream_id=last_stream, error_code=code))


H2Behaviour = Callable[[H2Connection], None]


def speaks_h2(behaviour: H2Behaviour, **settings: int) -> Behaviour:
    """
    Return a behaviour of the raw server that begins with SETTINGS, and then does what *behaviour* does.

    It allows 100 streams by default. A client of httpcore sends one request at a time if the server does not say how many.
    """

    def serve(connection: Connection) -> None:
        h2 = H2Connection(connection)
        h2.start(**{"MAX_CONCURRENT_STREAMS": 100, **settings})
        behaviour(h2)

    return serve


def answers(answer: Callable[[H2Connection, Request], None]) -> H2Behaviour:
    """Return a behaviour that calls *answer* for each request, until the connection ends."""

    def behaviour(connection: H2Connection) -> None:
        while request := connection.read_request():
            answer(connection, request)

    return behaviour


def page(request: Request, *, pages: int = 1, size: int = 2) -> dict[str, Any]:
    """Return the page that *request* asks for, of a corporation with *pages* pages: `corp_1-0`, `corp_1-1`, and so on."""
    corporation, number = request.params["corporation_id"], int(request.params.get("cursor", "0"))
    ids = [f"{corporation}-{number * size + index}" for index in range(size)]
    following = str(number + 1) if number + 1 < pages else None
    return {**listing(*ids, corporation_id=corporation, cursor=following), "total_customers": pages * size}


def answers_pages(connection: H2Connection, *, pages: int = 1, size: int = 2) -> None:
    """Be a server without faults: every corporation has *pages* pages."""
    answers(lambda _, request: connection.respond(request.stream, page(request, pages=pages, size=size)))(connection)


def settings_frame(**settings: int) -> SettingsFrame:
    """Return a SETTINGS frame, from settings by name."""
    return SettingsFrame(settings={getattr(SettingsFrame, name): value for name, value in settings.items()})


def data_frames(stream: int, body: bytes, *, size: int = _LARGEST_FRAME, ends: bool = True) -> list[Frame]:
    """Return the DATA frames of a body."""
    chunks: Iterable[bytes] = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    frames: list[Frame] = [DataFrame(stream, chunk) for chunk in chunks]
    if ends:
        frames[-1].flags.add("END_STREAM")
    return frames


def h2_context(authority: trustme.CA, *protocols: str, host: str = "localhost") -> ssl.SSLContext:
    """Return a server's TLS, which negotiates HTTP/2 unless other *protocols* are given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(list(protocols) or ["h2"])
    authority.issue_cert(host).configure_cert(context)
    return context
