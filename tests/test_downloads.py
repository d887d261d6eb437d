"""Downloads: whatever a server does, they end, with the file that was meant or with an error that says what came."""

import contextlib
import hashlib
import http.server
import itertools
import re
import threading
import time
from pathlib import Path

import pytest

from recipes.parts import downloads
from recipes.parts.downloads import fetch

DATA = bytes(range(256)) * 40
SIZE = len(DATA)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with whatever the test writes; ``start`` is where the asked-for range begins, 0 if none is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        with contextlib.suppress(ConnectionError):
            self.server.answer(self, int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0)
        self.close_connection = True

    def tell(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def part(self, start, cut=SIZE, **headers):
        told = {"Content_Range": f"bytes {start}-{SIZE - 1}/{SIZE}", "Content_Length": SIZE - start}
        self.tell(206, DATA[start : start + cut], **told | headers)

    def whole(self, cut=SIZE, **headers):
        self.tell(200, DATA[:cut], **{"Content_Length": SIZE} | headers)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Starts a server that calls ``answer(handler, start)`` for each request."""
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01)))
    servers, has_ended = [], threading.Event()

    def start(answer):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.answer, server.asked, server.has_ended = True, answer, [], has_ended
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        server.url = f"http://127.0.0.1:{server.server_port}/data.zip"
        return server

    yield start
    has_ended.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)


def drip(handler, byte=b"x"):
    while not handler.server.has_ended.wait(0.02):
        handler.wfile.write(byte)


def get(server, path, tries=3):
    fetch(server.url, path, SIZE, hashlib.sha256(DATA).hexdigest(), tries)
    assert path.read_bytes() == DATA


def refused(server, path, tries=3):
    with pytest.raises(OSError) as caught:
        get(server, path, tries)
    assert server.url in str(caught.value)
    return str(caught.value)


# -- what comes through


def test_a_file_is_fetched_and_verified_by_its_sha_256_or_md5(tmp_path, serve):
    server = serve(lambda handler, start: handler.whole())
    get(server, tmp_path / "new" / "file")
    get(server, tmp_path / "new" / "file")  # it is there
    fetch(server.url, tmp_path / "other", SIZE, hashlib.md5(DATA).hexdigest())
    assert server.asked == [None, None]


def test_a_download_that_is_cut_goes_on_where_it_stopped(tmp_path, serve):
    server = serve(lambda handler, start: handler.part(start, 3000) if start else handler.whole(3000))
    get(server, tmp_path / "file", tries=1)
    assert server.asked == [None, "bytes=3000-", "bytes=6000-", "bytes=9000-"]


def test_a_server_without_ranges_adds_what_it_gives_beyond_what_is_there(tmp_path, serve):
    lengths = iter([4000, 2000, 3000, 6000, SIZE])
    server = serve(lambda handler, start: handler.whole(next(lengths)))
    get(server, tmp_path / "file")
    assert server.asked == [None, *["bytes=4000-"] * 3, "bytes=6000-"]


def test_a_server_may_leave_the_length_out(tmp_path, serve):
    def answer(handler, start):
        handler.tell(200, b"%x\r\n%b\r\n0\r\n\r\n" % (SIZE, DATA), Transfer_Encoding="chunked")

    get(serve(answer), tmp_path / "file")


def test_more_than_the_file_is_not_kept(tmp_path, serve):
    def endless(handler, start):
        handler.tell(200, DATA, Connection="close")
        while not handler.server.has_ended.is_set():
            handler.wfile.write(bytes(1 << 16))

    (tmp_path / "longer").write_bytes(DATA + b"x")
    for name in ("file", "longer"):
        get(serve(endless), tmp_path / name)


def test_a_server_may_be_out_of_order_for_a_while(tmp_path, serve):
    codes = iter([503, 500, 502, 504])
    get(
        serve(
            lambda handler, start: handler.tell(code, Content_Length=0) if (code := next(codes, 0)) else handler.whole()
        ),
        tmp_path / "file",
        5,
    )


# -- what does not


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Content_Length": 7}, "200, Content-Type '', Content-Length '7', Content-Range None"),
        ({"Content_Length": SIZE + 1}, f"200, Content-Type '', Content-Length '{SIZE + 1}'"),
        ({"Content_Length": -5}, "200, Content-Type '', Content-Length '-5', Content-Range None"),
        ({"Content_Length": "many"}, "200, Content-Type '', Content-Length 'many', Content-Range None"),
        ({"Content_Type": "text/html; charset=utf-8"}, "200, Content-Type 'text/html'"),
    ],
)
def test_an_answer_that_is_not_the_file_is_told_by_its_headers(tmp_path, serve, headers, told):
    server = serve(lambda handler, start: handler.whole(**headers))
    text = refused(server, tmp_path / "file")
    assert f"3 times in a row nothing came (the server answers {told}" in text
    assert (
        f"the 0 of {SIZE:,} bytes that are here are kept in {tmp_path / 'file'}, and the same command goes on" in text
    )
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": f"bytes 0-{SIZE - 1}/{SIZE}"},
        {"Content_Range": f"bytes 100-{SIZE - 1}/*"},
        {"Content_Range": f"bytes 100-{SIZE}/{SIZE + 1}"},
        {"Content_Range": "all"},
        {"Content_Length": 3},
    ],
)
def test_a_part_that_was_not_asked_for_is_not_taken(tmp_path, serve, headers):
    (tmp_path / "file").write_bytes(DATA[:100])
    text = refused(serve(lambda handler, start: handler.part(start, **headers)), tmp_path / "file")
    ((name, value),) = headers.items()
    assert f"{name.replace('_', '-')} '{value}'" in text and (tmp_path / "file").read_bytes() == DATA[:100]


def test_a_part_though_the_whole_was_asked_for_is_not_taken(tmp_path, serve):
    assert f"206, Content-Type '', Content-Length '{SIZE - 50}', Content-Range 'bytes 50-" in refused(
        serve(lambda handler, start: handler.part(50)), tmp_path / "file"
    )
    assert "206, Content-Type '', Content-Length '10', Content-Range None" in refused(
        serve(lambda handler, start: handler.tell(206, DATA[:10], Content_Length=10)), tmp_path / "file"
    )


@pytest.mark.parametrize("there", [0, 700])
@pytest.mark.parametrize("cut", [0, 500])
def test_a_server_without_ranges_that_always_cuts_has_so_many_tries(tmp_path, serve, there, cut):
    (tmp_path / "file").write_bytes(DATA[:there])
    server = serve(lambda handler, start: handler.whole(cut))
    assert "3 times in a row nothing came (the connection was cut)" in refused(server, tmp_path / "file")
    assert len(server.asked) == 3 + (there < cut)
    assert (tmp_path / "file").read_bytes() == DATA[: max(there, cut)]


def test_a_byte_for_each_connection_is_nothing(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(downloads, "MOST_TRIES", 1000)
    server = serve(lambda handler, start: handler.part(start, 1) if start else handler.whole(1))
    refused(server, tmp_path / "file")
    assert len(server.asked) == 3


@pytest.mark.parametrize("where", ["before the answer", "headers", "body", "chunks", "trailer"])
def test_a_byte_now_and_then_is_nothing(tmp_path, serve, where, impatient):
    def answer(handler, start):
        head = b"HTTP/1.1 200 OK\r\n"
        chunked = b"Transfer-Encoding: chunked\r\n\r\n"
        begun = {"headers": head + b"X: ", "body": head + b"Content-Length: %d\r\n\r\n" % SIZE}
        begun |= {"chunks": head + chunked, "trailer": head + chunked + b"0\r\n"}
        handler.wfile.write(begun.get(where, b""))
        drip(handler, b"0" if where == "chunks" else b"X: x\r\n" if where == "trailer" else b"x")

    text = refused(serve(answer), tmp_path / "file", tries=2)
    assert "2 times in a row nothing came (" in text


def test_a_server_that_says_nothing_is_left(tmp_path, serve, impatient):
    server = serve(lambda handler, start: handler.server.has_ended.wait())
    assert "(less than 65,536 bytes came in 0.2 seconds)" in refused(server, tmp_path / "file", tries=2)


def test_what_the_server_refuses_is_told_at_once(tmp_path, serve):
    (tmp_path / "file").write_bytes(DATA[:100])
    for code, reason in ((404, "Not Found"), (403, "Forbidden"), (416, "Requested Range Not Satisfiable")):
        server = serve(lambda handler, start: handler.tell(code, Content_Length=0, Content_Range="bytes */99"))
        assert f"the server says {code} {reason}." in refused(server, tmp_path / "file") and len(server.asked) == 1
    assert (tmp_path / "file").read_bytes() == DATA[:100]


@pytest.mark.parametrize(
    "to", ["/data.zip", "/{}/{}", "file:///etc/passwd", "http://[::1", "http://127.0.0.1:99999/", "http://\xff/", "x:y"]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # urllib leaves the socket to Python
def test_a_redirection_for_ever_or_to_nonsense_ends(tmp_path, serve, to):
    numbers = itertools.count()
    server = serve(lambda handler, start: handler.tell(302, Content_Length=0, Location=to.format(next(numbers), 1)))
    text = refused(server, tmp_path / "file")
    assert "\n" not in text and len(server.asked) < 20


def test_a_file_that_was_replaced_between_two_tries_is_removed(tmp_path, serve):
    other = bytes(SIZE)
    server = serve(
        lambda handler, start: handler.part(start) if start else handler.tell(200, other[:500], Content_Length=SIZE)
    )
    text = refused(server, tmp_path / "file")
    assert "is damaged, or another file (its SHA-256 is " in text or "(its SHA256 is " in text
    assert f"not {hashlib.sha256(DATA).hexdigest()}); it was removed: download it again." in text
    assert not (tmp_path / "file").exists()
    longer = serve(
        lambda handler, start: handler.part(
            start, Content_Range=f"bytes {start}-{SIZE}/{SIZE + 1}", Content_Length=SIZE + 1 - start
        )
    )
    (tmp_path / "file").write_bytes(DATA[:500])
    assert f"'bytes 500-{SIZE}/{SIZE + 1}', and that is not the file of {SIZE} bytes" in refused(
        longer, tmp_path / "file"
    )


def test_no_host_is_told_after_some_tries(tmp_path, serve):
    server = serve(lambda handler, start: None)
    server.shutdown()
    server.server_close()
    assert "Connection refused" in refused(server, tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_path(tmp_path, serve):
    (tmp_path / "file").symlink_to("/dev/full")
    server = serve(lambda handler, start: handler.whole())
    with pytest.raises(OSError, match=r"/file: No space left on device. What came is kept: the same command goes on"):
        get(server, tmp_path / "file")
    assert len(server.asked) <= 1
