"""
How do clients speak TLS with servers that were built without it?

A front listens where the server seems to be, ends the TLS there and passes the bytes on.  What is not TLS is
refused, as a server set to require it would.
"""

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable

from ledger_db.event_log import EventLog
from ledger_db.sandbox.ports import HOST

log: EventLog = EventLog(__name__)

Greeting = Callable[[asyncio.StreamReader, asyncio.StreamWriter, ssl.SSLContext], Awaitable[bytes | None]]
"""
Turns a fresh connection into one over TLS; returns what the backend must be sent first, or None to hang up.
"""

_SSL_REQUEST = 80_877_103
_GSS_REQUEST = 80_877_104
_CANCEL_REQUEST = 80_877_102
_LONGEST_STARTUP = 10_000
_CHUNK = 65_536
_PATIENCE_SECONDS = 10.0
# OSError covers TLS errors, timeouts and resets.
_LOST = (OSError, asyncio.IncompleteReadError)


class TLSFront:
    """
    Listens on one port with TLS and passes everything on to another port of this machine.

    Runs an event loop in a thread of its own.  ``start`` and ``stop`` may be called again and again, by one
    thread at a time.
    """

    def __init__(self, port: int, backend_port: int, *, context: ssl.SSLContext, greeting: Greeting) -> None:
        self.port = port
        self._backend_port = backend_port
        self._context = context
        self._greeting = greeting
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """
        Listen; return when connections are accepted.

        Raises:
            OSError: The port is taken.
        """
        if self._thread is not None:
            return
        listening = threading.Event()
        failures: list[OSError] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(listening))
            except OSError as error:
                failures.append(error)
            finally:
                listening.set()

        self._thread = threading.Thread(target=run, name=f"tls-front-{self.port}", daemon=True)
        self._thread.start()
        listening.wait()
        if failures:
            self._thread.join()
            self._thread = None
            raise failures[0]

    def stop(self) -> None:
        """Refuse new connections, cut those that are open, and wait until all of it is done."""
        if self._thread is None:
            return
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = None

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        # Kept here: the loop itself holds tasks only weakly, and stopping has to find every one.
        open_connections: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            open_connections.add(task)
            task.add_done_callback(open_connections.discard)
            await self._connection(reader, writer)

        server = await asyncio.start_server(accept, HOST, self.port)
        listening.set()
        try:
            await self._stopping.wait()
        finally:
            server.close()
            tasks = list(open_connections)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            try:
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    first = await self._greeting(reader, writer, self._context)
                if first is not None:
                    await self._pass_on(reader, writer, first)
            except _LOST as error:
                # Normal: a client that trusts another authority hangs up in the middle of the handshake.
                log.debug("tls_front.connection_lost", port=self.port, error=type(error).__name__)
        except asyncio.CancelledError:
            # stop() is cutting connections: no farewell over TLS that the client would have to answer.  It is
            # not raised again, as asyncio's stream server reports a cancelled handler as an error.
            writer.transport.abort()
        finally:
            await _close(writer)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes
    ) -> None:
        backend_reader, backend_writer = await asyncio.open_connection(HOST, self._backend_port)
        try:
            backend_writer.write(first)
            inwards = asyncio.create_task(_pump(reader, backend_writer))
            try:
                # The end of the server's words ends the connection.  The end of the client's words does not:
                # an answer may still be on its way.
                await _pump(backend_reader, writer)
            finally:
                inwards.cancel()
                await asyncio.gather(inwards, return_exceptions=True)
        finally:
            await _close(backend_writer)


async def postgres_greeting(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> bytes | None:
    """Do as PostgreSQL with nothing but ``hostssl`` rules: agree to TLS, refuse to talk without it."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        if code == _SSL_REQUEST:
            # Bytes that came along with the request would be read as if they had been encrypted: a middleman
            # could inject commands that way (CVE-2021-23214).
            if _buffered(reader):
                return None
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(context)
            return b""
        if code != _GSS_REQUEST:
            break
        writer.write(b"N")
        await writer.drain()
    if not len(head) <= length <= _LONGEST_STARTUP:
        return None
    rest = await reader.readexactly(length - len(head))
    if code == _CANCEL_REQUEST:
        # libpq sends it without TLS; it holds a key and no login, and PostgreSQL takes it from everybody.
        return head + rest
    writer.write(_refusal(rest))
    await writer.drain()
    return None


async def redis_greeting(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
) -> bytes | None:
    """Do as a Redis TLS port: a handshake is the first thing, whatever the client has to say."""
    await writer.start_tls(context)
    return b""


def _buffered(reader: asyncio.StreamReader) -> bool:
    return bool(getattr(reader, "_buffer", b""))


def _refusal(parameters: bytes) -> bytes:
    """Return the words in which PostgreSQL refuses a login without TLS."""
    parts = parameters.split(b"\0")
    named = dict(zip(parts[::2], parts[1::2], strict=False))
    user = named.get(b"user", b"").decode(errors="replace")
    database = named.get(b"database", named.get(b"user", b"")).decode(errors="replace")
    message = f'no pg_hba.conf entry for host "{HOST}", user "{user}", database "{database}", no encryption'
    fields = b"SFATAL\0VFATAL\0C28000\0M" + message.encode() + b"\0\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(*_LOST):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(*_LOST):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await writer.wait_closed()
