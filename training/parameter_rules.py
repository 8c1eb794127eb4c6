"""Which parameters are frozen, and with what rates the others are trained: rules by name, read by one matcher.

    parameter_rules:
      - match: "text_model.encoder.layers.[0-8].*"        # glob, or a list of globs
        frozen: true
      - match: ["*.temporal_attn.*", "*.layer_norm3.*", "sorter.*"]
        learning_rate: 1.0e-4
      - match: "*"
        learning_rate: 1.0e-7
        weight_decay: 0.05

The first rule that matches a parameter decides about it. Nothing is left to chance: a rule that decides about no
parameter, a parameter without a rule, and an unknown key are errors.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from torch import nn


@dataclass(frozen=True)
class ParameterRule:
    """What happens to the parameters whose names match.

    match: globs (`*`, `?`, `[0-8]`) over whole parameter names.
    frozen: True leaves the parameters as they are.
    learning_rate, weight_decay: of these parameters; None: the run's `learning_rate` and `weight_decay`.
    """

    match: tuple[str, ...]
    frozen: bool = False
    learning_rate: float | None = None
    weight_decay: float | None = None

    @classmethod
    def from_dict(cls, rule: Mapping) -> "ParameterRule":
        """Return the rule that a YAML mapping states.

        Raises:
            ValueError: unknown keys, no glob, or values of the wrong kind.
        """
        if not isinstance(rule, Mapping):
            raise ValueError(f"A parameter rule is a mapping with the key 'match', got {rule!r}.")
        known = [field.name for field in fields(cls)]
        for key in rule:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}."
                raise ValueError(f"Unknown key {key!r} in parameter rule {dict(rule)}; {hint}")
        match = rule.get("match")
        match = (match,) if isinstance(match, str) else tuple(match or ())
        if not match or not all(isinstance(glob, str) for glob in match):
            raise ValueError(f"A parameter rule needs 'match', a glob or a list of globs; got {dict(rule)}.")
        frozen = rule.get("frozen", False)
        if not isinstance(frozen, bool):
            raise ValueError(f"'frozen' must be true or false, got {frozen!r} for {match}.")
        rates = {key: rule[key] for key in ("learning_rate", "weight_decay") if rule.get(key) is not None}
        if frozen and rates:
            raise ValueError(f"The rule for {match} is frozen and has rates; take one of the two away.")
        for key, value in rates.items():
            try:
                rates[key] = float(value)  # YAML reads 1e-4, without a point, as a string
            except (TypeError, ValueError):
                raise ValueError(f"{key!r} must be a number, got {value!r} for {match}.") from None
            if not 0 <= rates[key] < float("inf"):
                raise ValueError(f"{key!r} must be at least 0 and finite, got {value} for {match}.")
        return cls(match, frozen, **rates)

    def matches(self, name: str) -> bool:
        """Return whether a parameter's whole name fits one of the globs."""
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.match)


@dataclass(frozen=True)
class ParameterGroup:
    """The parameters that one rule decides about and that share a weight decay: one group of the optimizer."""

    match: list[str]
    frozen: bool
    learning_rate: float
    weight_decay: float
    num_elements: int
    parameters: list[str]


class ParameterPlan:
    """Every parameter of a model in exactly one group.

    Args:
        model: the model, on any device, the meta device included.
        rules: in order of precedence, see `ParameterRule.from_dict`.
        learning_rate, weight_decay: where a rule states none.
        no_weight_decay: globs of parameters that no rule decays; by default biases and norms, as in the paper.

    Raises:
        ValueError: a rule that decides about nothing, a parameter without a rule, nothing left to train.
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Iterable[Mapping],
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
        no_weight_decay: Iterable[str] = ("*.bias", "*norm*.weight"),
    ):
        rules = [ParameterRule.from_dict(rule) for rule in rules]
        parameters = dict(model.named_parameters())
        self.groups = []
        for rule, names in zip(rules, _assign(list(parameters), rules), strict=True):
            rate = learning_rate if rule.learning_rate is None else rule.learning_rate
            decay = weight_decay if rule.weight_decay is None else rule.weight_decay
            if rule.frozen:
                rate = decay = 0.0
            undecayed = {name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in no_weight_decay)}
            for own_decay in dict.fromkeys([decay, 0.0]):
                own = [name for name in names if (0.0 if name in undecayed else decay) == own_decay]
                if own:
                    size = sum(parameters[name].numel() for name in own)
                    self.groups.append(ParameterGroup(list(rule.match), rule.frozen, rate, own_decay, size, own))
        if all(group.frozen for group in self.groups):
            raise ValueError("The parameter rules freeze every parameter, so there is nothing to train.")

    @classmethod
    def from_arguments(cls, model: nn.Module, args) -> "ParameterPlan":
        """Return the plan of a run; `args` are its `PreTrainingArguments`."""
        return cls(
            model,
            args.parameter_rules,
            learning_rate=args.learning_rate,
            weight_decay=args.weight_decay,
            no_weight_decay=args.no_weight_decay,
        )

    def apply(self, model: nn.Module) -> list[dict]:
        """Set `requires_grad` of every parameter, True or False, and returns the optimizer's groups."""
        parameters = dict(model.named_parameters())
        optimizer_groups = []
        for group in self.groups:
            members = [parameters[name] for name in group.parameters]
            for parameter in members:
                parameter.requires_grad_(not group.frozen)
            if not group.frozen:
                rates = {"lr": group.learning_rate, "weight_decay": group.weight_decay}
                optimizer_groups.append({"params": members, "name": " ".join(group.match), **rates})
        return optimizer_groups

    def table(self) -> str:
        """Return the plan as a table, a line a group, with the number of elements of each."""
        rows = [("rule", "tensors", "elements", "learning rate", "weight decay")]
        for group in self.groups:
            rate = "frozen" if group.frozen else f"{group.learning_rate:g}"
            decay = "-" if group.frozen else f"{group.weight_decay:g}"
            rows.append((" ".join(group.match), str(len(group.parameters)), f"{group.num_elements:,}", rate, decay))
        num_tensors = sum(len(group.parameters) for group in self.groups)
        total = sum(group.num_elements for group in self.groups)
        trained = sum(group.num_elements for group in self.groups if not group.frozen)
        rows.append(("all", str(num_tensors), f"{total:,}", f"{trained:,} trained", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Return the plan for a JSON file: every group with its rates and its parameters' names."""
        return {"groups": [asdict(group) for group in self.groups]}


def _assign(names: list[str], rules: list[ParameterRule]) -> list[list[str]]:
    """Return the names that each rule decides about."""
    members: list[list[str]] = [[] for _ in rules]
    orphans = []
    for name in names:
        first = next((index for index, rule in enumerate(rules) if rule.matches(name)), None)
        orphans.append(name) if first is None else members[first].append(name)
    for rule, rule_names in zip(rules, members, strict=True):
        for glob in rule.match:
            if not any(fnmatch.fnmatchcase(name, glob) for name in names):
                near = difflib.get_close_matches(glob.replace("*", ""), names, n=3, cutoff=0.3)
                raise ValueError(
                    f"The parameter rule {glob!r} matches nothing. "
                    + (f"Names like it: {', '.join(near)}." if near else f"Names are like {', '.join(names[:3])}.")
                )
        if not rule_names:
            raise ValueError(
                f"The parameter rule {' '.join(rule.match)!r} decides about nothing: earlier rules match all of its "
                "parameters. Move it up, or take it away."
            )
    if orphans:
        raise ValueError(
            f"{len(orphans)} parameters match no rule, among them {', '.join(orphans[:3])}. End the rules with "
            'match: "*".'
        )
    return members
