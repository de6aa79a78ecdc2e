"""An SSH server on loopback that runs what it is told in a shell, for one client key. Prints its port."""

from __future__ import annotations

import asyncio
import sys

import asyncssh


async def serve(process: asyncssh.SSHServerProcess) -> None:
    """One command: all its input, then all its output, then its exit code."""
    pipe = asyncio.subprocess.PIPE
    data = await process.stdin.read()
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", process.command or ":", stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await child.communicate(data)
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode or 0)


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
