"""A compositional split that keeps images of one source together: of one photograph, video or patient.

Images of one source share light, camera and place, so a source in two splits lets a model recognise the source instead
of the pair. A source may show several pairs. It goes to one split as a whole, and its images of unseen pairs that do
not belong there are left out: training may not see them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from datasets.base import PHASES, Pair, Phase
from datasets.own.split import DRAWS, SplitOptions, check_split, leave_out
from datasets.streams import stream
from errors import UserError, counted


def draw_grouped_split(
    labels: Sequence[Pair],
    contents: Sequence[str],
    groups: Sequence[str],
    options: SplitOptions,
    where: str = "the data",
) -> list[Phase | None]:
    """Return the phase of each image, None for one that is left out; no group is in two phases.

    labels: the (state, object) of each image
    contents: the hash of its content; groups with a content in common are one
    groups: the source of each image

    The result depends on these and on the options alone, not on the order of the images. val and test get their shares
    of the images of seen pairs, up to the size of a group. Where no split is possible the `UserError` says why.
    """
    pairs = sorted(set(labels))
    unseen = leave_out(pairs, max(2, round(options.unseen * len(pairs))), options.seed, where)
    home: dict[Pair, Phase] = {pair: PHASES[2 - place % 2] for place, pair in enumerate(unseen)}
    sources = joined_groups(groups, contents)
    failure: UserError | None = None
    for attempt in range(DRAWS):
        placed = _placed(labels, sources, home, options, attempt)
        phases = [
            placed[source] if label not in home or home[label] == placed[source] else None
            for label, source in zip(labels, sources, strict=True)
        ]
        kept = [(label, phase) for label, phase in zip(labels, phases, strict=True) if phase is not None]
        try:
            check_split([label for label, _ in kept], [phase for _, phase in kept], where)
        except UserError as error:
            failure = failure or error
        else:
            return phases
    count = counted(len(set(sources)), "group")
    raise UserError(
        f"No split of {where} keeps every group together.",
        f"With its {count} {DRAWS} draws failed, the first like this: {failure.asked if failure else ''}",
        "Add groups, give larger shares of val and test, or fill in the column 'split' yourself.",
    ) from failure


def joined_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Return the group of each image after groups that share a content are one, called by its first name.

    >>> joined_groups(["a", "b", "b", "c"], ["x", "x", "y", "z"])
    ['a', 'a', 'a', 'c']
    """
    root = {group: group for group in groups}

    def find(group: str) -> str:
        while root[group] != group:
            root[group] = root[root[group]]
            group = root[group]
        return group

    first: dict[str, str] = {}
    for group, content in sorted(zip(groups, contents, strict=True)):
        one, other = find(first.setdefault(content, group)), find(group)
        root[max(one, other)] = min(one, other)
    return [find(group) for group in groups]


def _placed(
    labels: Sequence[Pair], sources: Sequence[str], home: Mapping[Pair, Phase], options: SplitOptions, attempt: int
) -> dict[str, Phase]:
    """Return the phase of each group: first all are training's, then val and test take in drawn order what they lack.

    A group without images of seen pairs goes where most of its images belong. One that holds the last training image of
    a seen pair stays.
    """
    members: dict[str, Counter[Pair]] = {}
    for label, source in sorted(zip(labels, sources, strict=True)):
        members.setdefault(source, Counter())[label] += 1
    names = sorted(members)
    holders = Counter(pair for name in names for pair in members[name] if pair not in home)
    seen = {name: sum(count for pair, count in members[name].items() if pair not in home) for name in names}
    total = sum(seen.values())
    lacking = {"val": options.val * total, "test": options.test * total}
    placed: dict[str, Phase] = {}
    for index in stream("own grouped split", options.seed, attempt).permutation(len(names)):
        name = names[index]
        if not seen[name]:
            belongs: Counter[Phase] = Counter()
            for pair, count in members[name].items():
                belongs[home[pair]] += count
            placed[name] = "val" if belongs["val"] > belongs["test"] else "test"
            continue
        phase: Phase = "val" if lacking["val"] > lacking["test"] else "test"
        own = [pair for pair in members[name] if pair not in home]
        placed[name] = "train"
        # Half of it at least is lacking: a large group does not overshoot a small share.
        if lacking[phase] >= seen[name] / 2 and all(holders[pair] > 1 for pair in own):
            placed[name] = phase
            lacking[phase] -= seen[name]
            holders.subtract(own)
    return placed
