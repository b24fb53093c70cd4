"""``vlmgs bench``: repeat the tables of a specification, and compare two benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vlmgs_ns.system.errors import InputError

if TYPE_CHECKING:
    from vlmgs_ns.bench.executor import Executor


@dataclass
class Bench:
    """Run every scene, method and seed of a specification (configs/*.yaml) and write tables and plots; runs that are done are
    not repeated. Or `vlmgs bench compare A B`: what differs between two folders that this command wrote."""

    what: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SPEC | compare A B")]
    """The specification; or the word compare and two folders."""
    out: Path | None = None
    """Folder to write; by default outputs/bench/ and the specification's name."""
    only: tuple[str, ...] = ()
    """Leave out what does not fit: scene=…,method=…,start=…,seed=… with * for anything; a key given twice means either.
    The tables then hold these runs alone; the same command without it writes those of all."""
    data_root: Path | None = None
    """Folder of the data sets; by default the folder of the specification."""
    executor: Literal["local", "ray"] = "local"
    """Where runs are carried out: processes of this machine, or a Ray cluster (pip install "vlmgs-ns[cluster]")."""
    jobs: int = 1
    """local: runs at a time. Times compare only with 1. ray without --address: worker processes of the cluster it starts."""
    address: str | None = None
    """ray: the cluster, as ray.init takes it (auto, or HOST:PORT); by default one is started on this machine."""
    vlm_url: str | None = None
    """The OpenAI-compatible server that runs with an openai backend ask, in place of the specification's: up to and with /v1."""
    keep: bool = False
    """Leave every trained scene in the folder, to be looked at with the other commands. They are large."""

    def run(self) -> None:
        """Do it; exits with 1 where runs failed or had no data."""
        if not self.what:
            raise InputError("there is no specification; give one, such as configs/toy.yaml")
        if self.what[0] == "compare":
            self._compare()
            return
        if len(self.what) > 1:
            raise InputError(f"{' '.join(self.what)}: give one specification, or compare and two folders")
        if self.jobs < 1:
            raise InputError(f"--jobs {self.jobs} does nothing; give 1 or more")
        if self.address is not None and self.executor != "ray":
            raise InputError(f"--address {self.address} is a Ray cluster's; add --executor ray")
        from vlmgs_ns.bench.session import run_bench
        from vlmgs_ns.system.progress import say

        spec = Path(self.what[0])
        out = self.out or Path("outputs") / "bench" / spec.stem
        executor = self._executor()
        try:
            rows = run_bench(spec, out, executor, only=self.only, data_root=self.data_root, vlm_url=self.vlm_url, keep=self.keep)
        finally:
            executor.close()
        say(f"\n{(out / 'summary.md').read_text(encoding='utf-8')}")
        say(f"Wrote {out}: results.jsonl, summary.md, summary.csv and plots")
        not_done = [row for row in rows if row["status"] != "done"]
        if not_done:
            raise InputError(
                f"{len(not_done)} of {len(rows)} runs are not done (why: {out / 'summary.md'}); the same command tries them again"
            )

    def _compare(self) -> None:
        if len(self.what) != 3:
            raise InputError("vlmgs bench compare takes two folders that vlmgs bench wrote: vlmgs bench compare A B")
        from vlmgs_ns.bench.compare import differences
        from vlmgs_ns.bench.results import read_rows
        from vlmgs_ns.system.progress import say

        a, b = Path(self.what[1]), Path(self.what[2])
        say(f"A: {a}\nB: {b}\n\n{differences(read_rows(a), read_rows(b))}")

    def _executor(self) -> Executor:
        if self.executor == "ray":
            from vlmgs_ns.bench.ray_executor import RayExecutor

            return RayExecutor(self.address, self.jobs)
        from vlmgs_ns.bench.local import LocalExecutor

        return LocalExecutor(self.jobs)
