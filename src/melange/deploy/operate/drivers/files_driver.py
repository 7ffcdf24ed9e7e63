"""The driver that writes manifests: into a git checkout, which a GitOps tool applies from."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melange.deploy.operate.drivers.dry_run import DryRun
from melange.deploy.render import render
from melange.errors import Caution, InputError, MelangeError
from melange.files import read_document, write_document

if TYPE_CHECKING:
    from melange.deploy.operate.drivers.driver import Order
    from melange.deploy.operate.observation import TypeSeen

# Files of ours in the folder, so that those of a type that is gone are removed, and nobody else's.
_LIST = ".melange-operate.json"
_GIT_S = 60.0


class FilesDriver:
    """Manifests of the wanted fleet in a folder, committed where it is a git checkout and that is asked for.

    It cannot see the cluster: an instance counts as serving after the start-up time.

    Parameters
    ----------
    paper
        The fleet as it should be by now.
    folder
        Where the manifests go.
    target
        What they are for, as ``melange deploy --to``.
    options
        Of that target.
    is_committed
        Whether each change becomes a git commit.
    """

    def __init__(
        self, paper: DryRun, folder: Path, target: str, options: Mapping[str, Any], *, is_committed: bool
    ) -> None:
        self.paper, self.folder, self.target, self.options = paper, folder, target, dict(options)
        self.is_committed = is_committed
        if is_committed and self._git("rev-parse", "--is-inside-work-tree").strip() != "true":
            raise InputError(f"{folder}: is not in a git checkout", hint="leave out --commit, or clone there first")

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """What there should be."""
        return self.paper.look(now_s)

    def act(self, order: Order) -> Sequence[Caution]:
        """Write the manifests of the fleet that is wanted, what still serves included; returns their cautions."""
        self.paper.act(order)
        if order.plan is None:
            return ()
        listed = self.folder / _LIST
        before = read_document(listed, "operate-files") if listed.exists() else {"files": [], "target": None}
        target = {name: count for name, count in order.target.items() if count}
        if before["target"] == target:
            return ()
        self.folder.mkdir(parents=True, exist_ok=True)
        manifest = render(order.plan, self.target, **self.options)
        # The list names old and new files until the old ones are gone, so that none is forgotten by a crash.
        every = sorted({*before["files"], *manifest.files})
        write_document(listed, "operate-files", {"files": every, "target": None})
        manifest.write(self.folder)
        for name in set(every) - set(manifest.files):
            (self.folder / name).unlink(missing_ok=True)
        write_document(listed, "operate-files", {"files": sorted(manifest.files), "target": target})
        if self.is_committed:
            self._git("add", "--all", "--", ".")
            words = ", ".join(f"{count} x {name}" for name, count in target.items())
            self._git("commit", "--quiet", "--allow-empty", "--message", f"Run {words}", "--", ".")
        return manifest.cautions

    def _git(self, *words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(self.folder), *words], capture_output=True, text=True, timeout=_GIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise MelangeError(f"git {words[0]}: {fault}") from fault
        if done.returncode and words[0] != "rev-parse":
            raise MelangeError(f"git {words[0]}: {done.stderr.strip() or done.returncode}")
        return done.stdout
