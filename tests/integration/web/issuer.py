"""A stand-in for Supabase: it publishes keys and exchanges passwords for tokens."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

KEYS_PATH = "/auth/v1/.well-known/jwks.json"
TOKEN_PATH = "/auth/v1/token"
ANON_KEY = "anon-key"
PASSWORD = "correct horse"


@dataclass
class Issuer:
    """What it does, and what it was asked."""

    url: str = ""
    keys: list[ECKey | RSAKey] = field(default_factory=list)
    key_fetches: int = 0
    sign_ins: list[dict[str, Any]] = field(default_factory=list)
    is_broken: bool = False
    """Whether it answers everything with 500."""
    let_answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, it answers nothing."""
    user_id: str = "5b1c6a0e-7c1e-4a5e-9f57-0d6b0f4f2f11"

    @property
    def name(self) -> str:
        return f"{self.url}/auth/v1"

    def token(self, key: ECKey | RSAKey | None = None, **changes: Any) -> str:
        """Returns a good token but for `changes`; a claim of None is left out."""
        signing = key or self.keys[0]
        claims = self.claims() | changes
        claims = {name: value for name, value in claims.items() if value is not None}
        algorithm = "ES256" if isinstance(signing, ECKey) else "RS256"
        header = {"alg": algorithm, "kid": signing.kid}
        return jwt.encode(header, claims, signing, algorithms=[algorithm])

    def claims(self) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.name,
            "aud": "authenticated",
            "sub": self.user_id,
            "exp": now + 600,
            "iat": now,
            "email": "ada@example.com",
            "role": "authenticated",
            "user_metadata": {"full_name": "Ada Lovelace"},
            "app_metadata": {"provider": "email"},
        }

    async def publish(self, _: web.Request) -> web.Response:
        self.key_fetches += 1
        await self.let_answer.wait()
        if self.is_broken:
            return web.Response(status=500)
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def exchange(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.sign_ins.append({"apikey": request.headers.get("apikey"), **body, **request.query})
        await self.let_answer.wait()
        if self.is_broken:
            return web.Response(status=500)
        if body["password"] != PASSWORD:
            return web.json_response({"error_code": "invalid_credentials"}, status=400)
        return web.json_response({"access_token": self.token(), "token_type": "bearer"})


@contextlib.asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer(keys=[ECKey.generate_key("P-256", {"kid": "first"})])
    issuer.let_answer.set()
    app = web.Application()
    app.router.add_get(KEYS_PATH, issuer.publish)
    app.router.add_post(TOKEN_PATH, issuer.exchange)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    issuer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield issuer
    finally:
        issuer.let_answer.set()
        await runner.cleanup()
