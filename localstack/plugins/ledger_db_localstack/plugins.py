"""How does LocalStack find what is here?  What is heavy is imported when it is wanted."""

from typing import Any

from localstack.runtime.server.core import RuntimeServerPlugin
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin


class ProcessExecutorPlugin(RuntimeExecutorPlugin):
    """Runs functions as processes, for ``LAMBDA_RUNTIME_EXECUTOR=process``."""

    name = "process"

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """Return the class of executors."""
        from ledger_db_localstack.executor import ProcessExecutor  # noqa: PLC0415 - see the module

        return ProcessExecutor


class LoopbackServerPlugin(RuntimeServerPlugin):
    """Listens where it was told, for ``GATEWAY_SERVER=loopback``."""

    name = "loopback"

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """Return the server."""
        from ledger_db_localstack.server import LoopbackServer  # noqa: PLC0415 - see the module

        return LoopbackServer()  # type: ignore[no-untyped-call]
