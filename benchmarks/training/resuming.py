"""What a training run keeps in its folder to go on from, and going on from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from benchmarks.runs.checkpoints import (
    BEST,
    Damaged,
    Progress,
    forget_state,
    holds_best,
    read_best,
    readable_states,
    write_best,
    write_state,
)
from benchmarks.runs.records import RunFolder
from benchmarks.training.execution import Execution
from benchmarks.training.steps import Notify
from errors import UserError
from methods.base import Method


@dataclass(frozen=True)
class SavedTraining:
    """The state and the best weights of a run in training. Only the first process of several writes them."""

    run_id: str
    folder: RunFolder
    method: Method
    execution: Execution

    def checkpoint(
        self, parts: Mapping[str, Any], progress: Progress, generators: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the state to go on from.

        parts: optimizer, scheduler and scaler by name
        generators: their states within an epoch, None after one
        """
        if not self.execution.group.leads:
            return
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"method": self.method.checkpoint(), "progress": asdict(progress), "generators": generators}
        write_state(self.folder.path, state)

    def write_best(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        """Write the weights of the epoch that is the best so far."""
        if self.execution.group.leads:
            write_best(self.folder.path, weights, self.run_id, epoch)

    def best(self, best_epoch: int) -> dict[str, Tensor]:
        """Return the weights of the best epoch.

        Where they are damaged the state is removed too, so that another start trains anew, and a `UserError` says so.
        """
        try:
            weights, epoch = read_best(self.folder.path, self.execution.device)
            if epoch != best_epoch:
                raise Damaged(f"{BEST} is of epoch {epoch + 1}, not of epoch {best_epoch + 1}")
        except Damaged as damage:
            if self.execution.group.leads:
                forget_state(self.folder.path)
            raise UserError(
                f"The best weights of {self.run_id} were lost while it trained.",
                f"{damage}.",
                "Start the run again: it trains from the beginning. If this happens again, check the disk.",
            ) from damage
        return weights

    def resume(self, parts: Mapping[str, Any], notify: Notify) -> tuple[Progress, Mapping[str, Tensor] | None]:
        """Go on from the latest whole state, or begin.

        Return the progress, and the states of the generators where an epoch was stopped, else None. The best weights
        must be whole too: where they are not, a state that holds them is taken, or none.
        """
        folder, device = self.folder.path, self.execution.device
        damages: list[str] = []
        states = readable_states(folder, device, damages)
        state = next(states, None)
        if state is not None and holds_best(state):
            self.write_best(state["method"], state["progress"]["best_epoch"])
        elif state is not None and state["progress"]["best_epoch"] >= 0:
            try:
                read_best(folder, device)
            except Damaged as damage:
                damages.append(str(damage))
                state = next(filter(holds_best, states), None)
                if state is not None:
                    self.write_best(state["method"], state["progress"]["best_epoch"])
        progress = Progress() if state is None else Progress(**state["progress"])
        if damages:
            place = f"goes on after epoch {progress.next_epoch}" if state is not None else "begins anew"
            notify(f"{'; '.join(damages)}. Training {place}; the numbers will be the same.")
        self.folder.resume_at(progress.next_epoch)
        if state is None:
            if self.execution.group.leads:
                forget_state(folder)
            return progress, None
        self.method.load_checkpoint(state["method"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
        return progress, state["generators"]
