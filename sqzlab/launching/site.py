"""What a Slurm cluster says of itself, and what each of it means for studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqzlab.slurm import client
from sqzlab.slurm.client import SilentError

CRED_EXPIRE_S = 120  # Slurm's default; so long a requeued job waits at least


@dataclass(frozen=True)
class Site:
    """Settings by Slurm's own names."""

    config: Mapping[str, str]
    partition: Mapping[str, str]  # the one that jobs go to; empty where that is not known
    max_array_size: int
    why_no_accounting: str | None  # None where sacct answers

    @classmethod
    def ask(cls, partition: str | None) -> Site:
        """`partition` is the asked one, or None for the default one. Raises UnavailableError."""
        config = _settings(client.ask("scontrol", "show", "config").splitlines())
        why_not = None
        try:
            client.ask("sacct", "-Xn", "-j", "1", timeout_s=20)
        except SilentError as error:
            why_not = str(error)
        return cls(config, _partition(partition), client.max_array_size(), why_not)

    @property
    def requeue_delay_s(self) -> int:
        """Seconds that a requeued job waits at least."""
        given = _settings(self.config.get("AuthInfo", "").split(",")).get("cred_expire", "")
        return int(given) if given.isdecimal() else CRED_EXPIRE_S

    def told(self) -> Iterator[tuple[bool, str, str]]:
        """(whether it is there, what, in words) of all that differs between sites and matters here."""
        version = self.config.get("SLURM_VERSION", "of unknown version")
        yield True, "cluster", f"Slurm {version}, arrays of up to {self.max_array_size:,} jobs"
        if self.why_no_accounting is None:
            yield True, "accounting", "sacct answers: it is known how a lost job ended"
        else:
            yield False, "accounting", f"{self.why_no_accounting}; how a lost job ended is not known, all else is"
        yield self._preemption()
        wait = self.config.get("KillWait", "?").removesuffix("sec").strip()
        given = "may be requeued" if self.config.get("JobRequeue") == "1" else "are requeued only as they ask for it"
        yield True, "jobs", f"{given}; {wait} s to save between SIGTERM and SIGKILL (KillWait)"
        if self.partition:
            most, usual = (self.partition.get(key, "?") for key in ("MaxTime", "DefaultTime"))
            yield True, "time", f"partition {self.partition['PartitionName']}: at most {most}, {usual} by default"
        else:
            yield False, "time", "the partition's limits are not known"

    def _preemption(self) -> tuple[bool, str, str]:
        mode = self.partition.get("PreemptMode") or self.config.get("PreemptMode", "OFF")
        if self.config.get("PreemptType", "preempt/none") == "preempt/none" or mode.startswith("OFF"):
            return True, "preemption", "off: no job is taken from you"
        first = "SIGUSR2" if "preempt_send_user_signal" in self.config.get("SlurmctldParameters", "") else "SIGTERM"
        grace_s = self.partition.get("GraceTime", "0")
        if grace_s == "0":
            told = "no grace time is set: a run repeats what it did since its last checkpoint (5 min at most)"
            return False, "preemption", f"{mode}; {told}"
        after = "" if mode.startswith("REQUEUE") else "; launch again to go on"
        return True, "preemption", f"{mode}; {first}, then {grace_s} s to save, which the runs do{after}"


def _partition(name: str | None) -> dict[str, str]:
    with suppress(SilentError):
        for line in client.ask("scontrol", "--oneliner", "show", "partition").splitlines():
            found = _settings(line.split())
            if found.get("PartitionName") in (name or "").split(",") or (
                name is None and found.get("Default") == "YES"
            ):
                return found
    return {}


def _settings(texts: list[str]) -> dict[str, str]:
    pairs = (text.partition("=") for text in texts)
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}
