"""How does a test get Starlette's own client, which regrets at import that it uses httpx?"""

import warnings

__all__ = ["TestClient"]

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient
