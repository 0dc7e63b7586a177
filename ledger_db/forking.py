"""
What does a forked child make its own before anybody uses it?

A child has its parent's memory and none of its threads.  A lock that one of them held stays locked, what one
of them was about to do never comes, and a socket is shared: who closes it takes it from the parent.  So
whoever has any of these says here how to begin anew:

    first   each forgets what is the parent's
    then    each goes on that had a thread: it uses what the others have made new by then
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, cast
from weakref import ref

if TYPE_CHECKING:
    from types import MethodType

Continue: TypeAlias = Callable[[], None] | None
"""What is to be done when all others have been called."""

Renewal: TypeAlias = Callable[[], Continue]
"""A bound method, one for each object."""


def at_fork(
    *, before: Renewal | None = None, in_parent: Renewal | None = None, in_child: Renewal | None = None
) -> None:
    """
    Call methods of an object at each fork of this process, for as long as the object lives.

    As ``os.register_at_fork``, which would keep it alive for ever.  Call it when the object is complete: a
    fork may come at any moment, from any thread.

    Args:
        before: Called where the fork was asked for.

        in_parent: Called there again.

        in_child: Called in the child, before anything else of ours runs there.
    """
    for methods, method in ((_before, before), (_in_parent, in_parent), (_in_child, in_child)):
        if method is not None:
            methods.add(method)


def keep_for_good(thing: object) -> None:
    """
    Let a child never use, close or drop *thing*, whose sockets are its parent's.

    Closing would end the parent's sessions on the server, and even the garbage collector would take the
    sockets out of the epoll set that parent and child share.
    """
    _kept.append(thing)


class _Methods:
    """Those of one moment, weakly: being known here must not keep anybody alive."""

    def __init__(self) -> None:
        # By identity: two objects that are equal are two, and some cannot be hashed.
        self._methods: dict[int, tuple[ref[object], Callable[[object], Continue]]] = {}

    def add(self, method: Renewal) -> None:
        bound, methods = cast("MethodType", method), self._methods
        key = id(bound.__self__)
        # Not WeakMethod, whose own callback fails where it is called at the end of the interpreter.
        methods[key] = ref(bound.__self__, lambda _: methods.pop(key, None)), bound.__func__

    def __call__(self) -> None:
        # Each is called whatever becomes of the others: a lock that stays the parent's never opens again.
        with ExitStack() as then, ExitStack() as first:
            for weak, renew in list(self._methods.values()):
                owner = weak()
                if owner is not None:
                    first.callback(_renew, partial(renew, owner), then)


def _renew(renew: Renewal, then: ExitStack) -> None:
    go_on = renew()
    if go_on is not None:
        then.callback(go_on)


_kept: list[object] = []
_before, _in_parent, _in_child = _Methods(), _Methods(), _Methods()

# Once, at import: such a hook can never be taken back.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
