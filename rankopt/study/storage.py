"""A study in an Optuna storage: its spec, its attempts and their results."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Hashable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.search import build_search
from rankopt.search.pruners import build_pruner
from rankopt.study.artifacts import Artifacts
from rankopt.study.attempts import (
    KEY,
    PLAN,
    SPEC,
    Group,
    ProposalState,
    by_key,
    by_origin,
    counted,
    keys,
    origin,
    proposal_state,
    recorded,
)
from rankopt.study.database import Say, open_database
from rankopt.study.job import GRACE, HEARTBEAT
from rankopt.study.storage_url import masked
from rankopt.study.stored_records import check_same_search, read_result, read_study

FAILURES = 10
"""A search gives up after as many failed proposals as it has trials, but not before this number."""
UNREADABLE = (json.JSONDecodeError, RecursionError)
"""Errors of Optuna about an attempt whose attributes are damaged, or nested too deeply."""
ARTIFACTS = "artifacts"
DELETED = "deleted"
"""Numbers of the deleted attempts. Optuna keeps every trial, because their number is their index."""
optuna.logging.set_verbosity(optuna.logging.ERROR)
# heartbeats, metric names and some samplers have been "experimental" for years; the versions are pinned and tested
warnings.filterwarnings("ignore", category=ExperimentalWarning)


class StudyStore:
    """One study in one storage. `queue` adds and takes attempts; `recovery` requeues lost ones.

    Args:
        url: an SQLAlchemy URL, for example `sqlite:///runs/quickstart/study.db`.
        name: of the study.
        folder: of the study; artifacts lie in `folder/artifacts` unless another location is given or recorded.
        artifacts: that location; see `artifact_stores.artifact_store`.
        patience: seconds to wait for a server that stops answering.
        known: the server has answered before, so wait for it at the start too.
        say: told about outages and about records that cannot be read.
    Raises:
        ConnectionError: the storage cannot be opened; one line.
    """

    def __init__(
        self, url: str, name: str, folder: Path, *, heartbeat: int = HEARTBEAT, grace: int = GRACE,
        artifacts: str | None = None, patience: float = 0.0, known: bool = False, say: Say = print,
    ) -> None:  # fmt: skip
        if grace < 2 * heartbeat:
            raise ValueError(f"--grace must be at least twice --heartbeat {heartbeat}, got {grace}")
        self.url, self.name, self.folder, self.say = url, name, folder, say
        self.heartbeat, self.grace, self.location = timedelta(seconds=heartbeat), timedelta(seconds=grace), artifacts
        self.storage, self.connector = open_database(
            url, patience=patience, known=known, say=say, heartbeat_interval=heartbeat, grace_period=grace
        )
        self.reported: set[str] = set()

    def exists(self) -> bool:
        """Whether the storage holds a study of this name."""
        return self.name in optuna.get_all_study_names(self.storage)

    def create(self, spec: StudySpec) -> None:
        """Create the study, or open it; record the spec as the current one.

        Raises:
            ValueError: the stored study has other objectives, is another search or belongs to another program.
        """
        directions = list(spec.objectives.values())
        self.study = optuna.create_study(
            storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
        )
        if SPEC in self.study.user_attrs:
            check_same_search(self.spec(), spec)
        elif self.study.get_trials(deepcopy=False):
            raise ValueError(
                f"study {self.name!r} in the storage {masked(self.url)} belongs to another program; choose another name"
            )
        known = [direction.name.lower() for direction in self.study.directions]
        if known != directions:
            raise ValueError(
                f"objectives must stay those of the stored study {self.name!r} ({', '.join(known)}), "
                f"got {', '.join(directions)}; choose another name for a new study"
            )
        self.study.set_metric_names(list(spec.objectives))
        self.study.set_user_attr(SPEC, spec.model_dump(mode="json", by_alias=True))
        if self.location:
            self.study.set_user_attr(ARTIFACTS, self.location)
        self._use(spec)

    def open(self) -> StudySpec:
        """Load an existing study and its current spec.

        Raises:
            ValueError: no such study, or not one of rankopt's.
        """
        if not self.exists():
            names = ", ".join(optuna.get_all_study_names(self.storage)) or "none"
            raise ValueError(
                f"the storage {masked(self.url)} has no study {self.name!r} (it has: {names}); "
                "create it with rankopt run"
            )
        self.study = optuna.load_study(storage=self.storage, study_name=self.name)
        if SPEC not in self.study.user_attrs:
            raise ValueError(
                f"study {self.name!r} in the storage {masked(self.url)} has no spec: it belongs to another program, or "
                "rankopt run is creating it at this moment; in that case try again"
            )
        spec = self.spec()
        self._use(spec)
        return spec

    def _use(self, spec: StudySpec) -> None:
        self.search = build_search(spec)
        self.study.sampler = optuna.samplers.RandomSampler()  # of a grid, which samples nothing; see `queue.take`
        if self.search.pruner:
            self.study.pruner = build_pruner(self.search.pruner).build()

    def spec(self) -> StudySpec:
        """The study's current spec."""
        return read_study(self.name, self.study.user_attrs[SPEC])

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The study's attempts, of some states or all, without those that were deleted or cannot be read."""
        deleted = set(self.study.user_attrs.get(DELETED, ()))
        return [attempt for attempt in self.all_trials(*states) if attempt.number not in deleted]

    def all_trials(self, *states: TrialState) -> list[FrozenTrial]:
        """As `trials`, with those that were deleted."""
        try:
            return self.study.get_trials(deepcopy=False, states=states or None)
        except UNREADABLE:
            return [attempt for attempt in self._readable() if not states or attempt.state in states]

    def _readable(self) -> Iterator[FrozenTrial]:
        """The attempts one by one; one whose attributes are damaged is left out, and reported once."""
        study = self.storage.get_study_id_from_name(self.name)
        for number in itertools.count():
            try:
                trial = self.storage.get_trial_id_from_study_id_trial_number(study, number)
            except KeyError:
                return
            try:
                yield self.storage.get_trial(trial)
            except UNREADABLE as error:
                self._report(
                    f"attempt {number} in the storage is damaged and left out ({error}); run again to repeat it"
                )

    def _report(self, problem: str) -> None:
        """Tell the user once about a record that cannot be read; `reported` has all of them."""
        if problem not in self.reported:
            self.reported.add(problem)
            self.say(problem)

    def frozen(self, trial: optuna.Trial) -> FrozenTrial:
        """An attempt of this process as the storage has it now."""
        return self.storage.get_trial(trial._trial_id)

    def identity(self, attempt: FrozenTrial) -> Hashable:
        """What the attempts at one trial share: its key in a grid, the number of the first attempt in a search."""
        return attempt.user_attrs.get(KEY) if self.search.trials is None else origin(attempt)

    def groups(self) -> dict[Hashable, Group]:
        """The attempts at each trial or proposal, the skipped ones left out."""
        groups: Any = by_key(self.trials()) if self.search.trials is None else by_origin(self.trials())
        return dict(groups)

    def states(self) -> dict[Hashable, ProposalState]:
        """The state of each trial or proposal."""
        return {key: proposal_state(group) for key, group in self.groups().items()}

    def plan(self) -> list[str]:
        """The keys that the study wants now, in order; those of a search's proposals."""
        if self.search.trials is None:
            return list(self.study.user_attrs.get(PLAN, []))
        return list(dict.fromkeys(key for trial in self.trials() for key in keys(trial)))

    def results(self, *, planned: bool = True, losses: bool = True) -> list[TrialResult]:
        """One result per key, in the order of the plan: a complete one if there is one, else the last failure.

        A record that cannot be read is left out, and reported once.

        Args:
            planned: True for only the results that the current spec asks for; of a search, those of complete proposals
                that were not pruned, because a mean over fewer seeds does not compare with one over all. False for
                all results, the others last.
            losses: whether to read the losses over time: more than half of a record, and in no table of results.
        """
        best: dict[str, TrialResult] = {}
        for attempt in self.trials():
            for data in counted(attempt) if planned and self.search.trials is not None else recorded(attempt):
                try:
                    result = read_result(attempt.number, data, losses=losses)
                except ValueError as error:
                    self._report(str(error))
                    continue
                if result.key not in best or best[result.key].status == "failed":
                    best[result.key] = result
        plan = self.plan()
        wanted = set(plan)
        others = [] if planned else [key for key in best if key not in wanted]
        return [best[key] for key in (*plan, *others) if key in best]

    def counted_keys(self) -> set[str]:
        """The keys of the results that the current spec asks for, see `results`."""
        if self.search.trials is None:
            return set(self.plan())
        found = (data for attempt in self.trials() for data in counted(attempt))
        return {data["key"] for data in found if isinstance(data, dict) and "key" in data}

    def counts(self) -> dict[str, int]:
        """The number of trials by state: complete, failed, running, waiting, and pruned in a search.

        Of a grid, the trials of its plan; of a search, its proposals, "waiting" including those still to be made.
        """
        states = self.states()
        if self.search.trials is None:
            found = [states.get(key, "waiting") for key in self.plan()]
            return {state: found.count(state) for state in ("complete", "failed", "running", "waiting")}
        found = list(states.values())
        counts = {state: found.count(state) for state in ("complete", "pruned", "failed", "running", "waiting")}
        return counts | {"waiting": counts["waiting"] + self._missing(states)}

    def proposals(self) -> list[tuple[list[str], ProposalState]]:
        """The keys (one, unless the study repeats) and the state of a search's proposals, in order; without those that
        are not sampled yet."""
        found = ((keys(group[-1]), proposal_state(group)) for group in by_origin(self.trials()).values())
        return [(names, state) for names, state in found if names]

    def wants(self) -> bool:
        """Whether a search needs another proposal: too few that did not fail, and not too many that did."""
        return self.search.trials is not None and self._missing(self.states()) > 0

    def _missing(self, states: Mapping[Hashable, ProposalState]) -> int:
        """How many proposals a search still has to make."""
        wanted, failed = self.search.trials or 0, list(states.values()).count("failed")
        return 0 if failed >= max(wanted, FAILURES) else max(0, wanted - (len(states) - failed))

    @property
    def artifacts(self) -> Artifacts:
        """The files of the study's trials: at the location given, else where the study says, else in its folder."""
        location = self.location or self.study.user_attrs.get(ARTIFACTS) or str(self.folder / "artifacts")
        return Artifacts(self.storage, location)
