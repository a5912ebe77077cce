"""`postgres`: a real PostgreSQL; a trigger stands for what it refuses."""

from __future__ import annotations

from typing import Any

from tests.connectors.rig import SinkRig
from tests.peers import postgres

GUARD = """
CREATE TABLE posted (id text, time timestamptz, n bigint, pad text);
CREATE TABLE refused (n bigint);
CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.n IN (SELECT n FROM refused) THEN RAISE 'it is not wanted'; END IF;
    RETURN new;
END $$;
CREATE TRIGGER guard BEFORE INSERT ON posted FOR EACH ROW EXECUTE FUNCTION guard();
"""


class PostgresRig(SinkRig):
    peer = "PostgreSQL"
    promise = "exactly once"
    password = postgres.PASSWORD
    limit = "buffer, then 429"

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.server: postgres.Postgres | None = None

    def version(self) -> str | None:
        return postgres.version()

    async def start(self) -> int:
        if self.server is None:
            self.server = postgres.Postgres()
            await self.server.start()
            await self._ask("execute", GUARD)
        else:
            await self.server.start()
        return self.server.port

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()

    async def _ask(self, how: str, text: str) -> Any:
        import asyncpg

        assert self.server is not None
        connection = await asyncpg.connect(self.server.url, password=postgres.PASSWORD)
        try:
            return await getattr(connection, how)(text)
        finally:
            await connection.close()

    def settings_with(self, port: int | None, password: str) -> str:
        url = f"postgresql://{postgres.USER}@127.0.0.1:{port}/{postgres.DATABASE}"
        return f'type = "postgres"\nurl = "{url}"\npassword = "{password}"\ntimeout = "2 s"'

    async def received(self) -> list[int]:
        return [row["n"] for row in await self._ask("fetch", "SELECT n FROM posted")]

    def refuse(self, number: int) -> None:
        assert self.server is not None
        self.server.run(f"INSERT INTO refused VALUES ({number})")
