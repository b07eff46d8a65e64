"""The Debian packages that hold Slurm's daemons."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PACKAGES = ("slurm-wlm", "munge")
ACCOUNTING_PACKAGES = ("slurmdbd", "mariadb-server-core", "mariadb-client-core")


def why_unavailable(accounting: bool = False) -> str | None:
    """Why no cluster can be started here, or None."""
    if sys.platform != "linux":
        return f"Slurm's daemons need Linux, not {sys.platform}"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if missing := _missing(accounting):
        if shutil.which("apt-get") is None:
            return f"not installed, and there is no apt-get: {', '.join(missing)}"
        try:
            apt("install", "--simulate", *missing)
        except subprocess.CalledProcessError as error:
            return f"apt-get cannot install {', '.join(missing)}: {error.stderr.strip().rpartition(chr(10))[2]}"
    return None


def install(accounting: bool) -> None:
    """Installs what is missing. Raises CalledProcessError where that fails."""
    if missing := _missing(accounting):
        apt("install", *missing)


def _missing(accounting: bool) -> list[str]:
    def installed(name: str) -> bool:
        query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
        return subprocess.run(query, capture_output=True, text=True).stdout == "installed"

    wanted = PACKAGES + (ACCOUNTING_PACKAGES if accounting else ())
    return [name for name in wanted if shutil.which("dpkg-query") is None or not installed(name)]


def apt(*arguments: str) -> None:
    """Runs apt-get; where it fails, refreshes the list of packages and tries once more."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def run(*words: str) -> None:
        command = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *words]
        subprocess.run(command, env=env, check=True, capture_output=True, text=True)

    try:
        run(*arguments)
    except subprocess.CalledProcessError:
        run("update")
        run(*arguments)
