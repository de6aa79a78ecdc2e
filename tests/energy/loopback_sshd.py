"""An SSH server on loopback that runs what it is told in a shell, for one client key. Prints its port."""

from __future__ import annotations

import asyncio
import sys

import asyncssh


async def serve(process: asyncssh.SSHServerProcess) -> None:
    """One command: its streams joined to the client's, its exit code told."""
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", process.command or ":", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    process.exit(await child.wait())
    await process.wait_closed()


async def main(client_key: str) -> None:
    """Serve until standard input closes."""
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        authorized_client_keys=client_key, process_factory=serve, encoding=None,
    )  # fmt: skip
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
