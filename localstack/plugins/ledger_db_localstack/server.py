"""Who can reach LocalStack?  Its own server listens on every address of the machine, whatever it is told."""

from typing import Any

from localstack.config import HostAndPort
from localstack.runtime.server.twisted import TwistedRuntimeServer
from rolo.gateway import Gateway
from rolo.serving.twisted import TwistedGateway
from twisted.internet import reactor


class LoopbackServer(TwistedRuntimeServer):
    """
    LocalStack's server, on the addresses in ``GATEWAY_LISTEN`` only.

    LocalStack accepts every signature, and runs whatever function it is given: whoever reaches it owns this
    account of the machine.
    """

    def register(self, gateway: Gateway, listen: list[HostAndPort], ssl_creds: Any = None) -> None:
        """
        Listen.

        Args:
            gateway: Answers.

            listen: Where.

            ssl_creds: Not used: on the loopback address nobody listens in.

        Raises:
            CannotListenError: Somebody else listens there; LocalStack ends.
        """
        site = TwistedGateway(gateway)
        for place in listen:
            reactor.listenTCP(place.port, site, interface=place.host)  # type: ignore[attr-defined]
