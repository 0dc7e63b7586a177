"""Where does a server vanish without a word?  In a network of its own, from which nothing comes any more."""

import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000


class Namespace:
    """
    A network namespace with one address, that of its servers.

    Attributes:
        address: Theirs.
    """

    def __init__(self) -> None:
        number = os.getpid()
        network = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.address = f"{network}.2"
        self._near = f"{network}.1"
        self._name, self._here, self._there = f"ns{number}", f"nsa{number}", f"nsb{number}"

    def add(self) -> None:
        """Make it; a test that may not is skipped."""
        if shutil.which("ip") is None or os.geteuid() != 0:
            pytest.skip("a network namespace needs Linux, root and iproute2")
        if subprocess.run(["ip", "netns", "add", self._name], capture_output=True, check=False).returncode:
            pytest.skip("this machine allows no network namespace")
        here, there = self._here, self._there
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", there, "netns", self._name)
        _ip("addr", "add", f"{self._near}/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", self._name, "addr", "add", f"{self.address}/24", "dev", there)
        _ip("-n", self._name, "link", "set", there, "up")

    def remove(self) -> None:
        """Leave nothing behind."""
        for line in (["link", "del", self._here], ["netns", "del", self._name]):
            subprocess.run(["ip", *line], capture_output=True, check=False)

    def listen(self) -> socket.socket:
        """Return a listening socket in there; whoever accepts may be out here."""
        made: list[socket.socket] = []

        def make() -> None:
            descriptor = os.open(f"/run/netns/{self._name}", os.O_RDONLY)
            try:
                assert ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) == 0
            finally:
                os.close(descriptor)
            made.append(socket.create_server((self.address, 0)))

        # A thread of its own, which ends: only it goes in there.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def vanish(self) -> None:
        """Nothing comes out any more: no answer, no acknowledgement, no goodbye."""
        _ip("-n", self._name, "route", "add", "blackhole", f"{self._near}/32")

    def come_back(self) -> None:
        """All is as before."""
        _ip("-n", self._name, "route", "del", "blackhole", f"{self._near}/32")


def _ip(*line: str) -> None:
    subprocess.run(["ip", *line], check=True, capture_output=True)


@contextmanager
def network_namespace() -> Iterator[Namespace]:
    """Make one, and remove it."""
    space = Namespace()
    try:
        space.add()
        yield space
    finally:
        space.remove()
