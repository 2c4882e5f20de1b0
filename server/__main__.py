"""The command `talkspurt` (= `python -m server`).

    serve     run until SIGTERM or SIGINT
    migrate   apply schema.sql and end
    doctor    say what is configured and what is wrong, one line each; --live reaches a provider
    replay    decide a captured call again; --recompute judges its audio again

Exit status: 0, 1 for what went wrong while running, 2 for a wrong configuration or usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import orjson

from server.agent.importer import AgentFileError
from server.config import Config, shared_file
from server.errors import ConfigError
from server.node.embedded import EmbeddedServers
from server.node.place import EmbeddedError
from server.store.postgres import Postgres, PostgresUnavailable

LIVE = ("azure", "openai", "groq", "azure-openai", "compatible")
OPEN_FILES = 65_536
"""What a process asks for, as far as its hard limit goes; the usual soft limit of 1024 is about 200 calls."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="talkspurt", description="Answers phone calls with an AI agent.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="run the server until SIGTERM or SIGINT")
    commands.add_parser("migrate", help="apply schema.sql to the database and end")
    doctor_parser = commands.add_parser("doctor", help="say what is configured and what is wrong, one line each")
    doctor_parser.add_argument("--live", metavar="PROVIDER", choices=LIVE, help=f"reach one of {', '.join(LIVE)}")
    replay_parser = commands.add_parser("replay", help="decide a captured call again: are its decisions the same?")
    replay_parser.add_argument("file", type=Path, metavar="CAPTURE", help="a file of DATA_DIR/capture")
    replay_parser.add_argument("--recompute", action="store_true", help="judge the captured audio again (needs it)")
    replay_parser.add_argument("--against", type=Path, metavar="AGENT", help="an agent's YAML in place of its settings")
    replay_parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    asked = parser.parse_args(argv)
    command = asked.command
    if command == "replay":
        return _replay(asked.file, asked.against, anew=asked.recompute, as_json=asked.json)
    if command == "doctor" and asked.live is None:
        from server.node import doctor

        return doctor.run(os.environ)
    try:
        config = Config.from_env(os.environ)
        if command == "doctor":
            from server import live_check

            return live_check.run(config, asked.live)
        return _migrate(config) if command == "migrate" else _serve(config)
    except (ConfigError, AgentFileError) as error:
        print(f"talkspurt: {error}", file=sys.stderr)
        return 2
    except (EmbeddedError, PostgresUnavailable, asyncpg.PostgresError, OSError) as error:
        print(f"talkspurt: {error}", file=sys.stderr)
        return 1


def _replay(path: Path, against: Path | None, *, anew: bool, as_json: bool) -> int:
    """0: the same decisions; 1: others; 2: not readable."""
    from server.agent.importer import parse_agent
    from server.call.capture_file import CaptureError
    from server.call.recompute import recompute
    from server.call.replay import lines, replay_capture
    from server.turn.machine import UnexpectedEvent

    settings = None
    if against is not None:
        try:
            if against.exists() and not against.is_file():
                raise OSError("not a regular file")
            settings = parse_agent(against.stem, against.read_text(encoding="utf-8")).settings
        except (AgentFileError, UnicodeDecodeError, OSError) as error:
            return _unreadable(against, error)
    try:
        result = (recompute if anew else replay_capture)(path, settings)
    except (CaptureError, UnexpectedEvent, OSError) as error:
        return _unreadable(path, error)
    if as_json:
        print(orjson.dumps(result.as_dict()).decode())
    else:
        print("\n".join(lines(result)))
    return 0 if result.is_same else 1


def _unreadable(path: Path, error: Exception) -> int:
    """One line, whatever the file holds."""
    reason = error.strerror or str(error) if isinstance(error, OSError) else " ".join(str(error).split())
    print(f"talkspurt: {path}: {reason}", file=sys.stderr)
    return 2


def _serve(config: Config) -> int:
    # The other commands must work where a provider or an extension is broken.
    from server.app import serve

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return serve(config)


def _migrate(config: Config) -> int:
    url = config.store.database_url
    servers = None if url else EmbeddedServers.start(config.store.data_dir, valkey=False)
    try:
        asyncio.run(_apply(url or (servers.database_url if servers else "")))
    finally:
        if servers is not None:
            servers.stop()
    print("schema applied")
    return 0


async def _apply(url: str) -> None:
    postgres = await Postgres.open(url)
    try:
        await postgres.apply_schema(shared_file("schema.sql").read_text())
    finally:
        await postgres.close()


if __name__ == "__main__":
    sys.exit(main())
