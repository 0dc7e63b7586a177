"""Can a password be read in the frames of an error, as tools that report errors print them?"""

import traceback
from pathlib import Path

PASSWORD = "pA55w0rd-that-must-not-show"

_TESTS = str(Path(__file__).parents[1])


def shown_in(error: BaseException, password: str = PASSWORD) -> list[str]:
    """Return where *password* can be read in the frames of *error*, of its causes, contexts and groups."""
    found: list[str] = []
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        for frame, _ in traceback.walk_tb(link.__traceback__):
            # A caller's own frames are its own business.
            if not frame.f_code.co_filename.startswith(_TESTS):
                where = f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_qualname}"
                found += [
                    f"{where}: {name}" for name, value in frame.f_locals.items() if password in repr(value)
                ]
        waiting += [link.__cause__, link.__context__, *getattr(link, "exceptions", ())]
    return found
