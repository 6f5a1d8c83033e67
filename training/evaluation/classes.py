"""Classes of two splits, matched by name: the one place where labels of different splits are compared."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import UserError

_SHOWN = 5


class ClassIndex:
    """The classes of the split that is fitted on, and the class number of each label value of both splits.

    Every label value has a name: the one that the split's ClassLabel declares for it, else the value as text. Labels of
    the two splits belong together if their names are equal, in whatever order a split numbers its classes. There is one
    exception: if only one split declares names, and these are not numbers themselves, the integers of the other split
    stand for the declared names in their order, and a note says so.

    Args:
        fit_feature: Feature of the labels of the split that is fitted on, or None if it is not known.
        score_feature: The same of the scored split.
        fit_split: Name of the split that is fitted on, for messages.
        score_split: Name of the scored split.
        what: What messages call a class.

    Attributes:
        names: Names of the classes in the order of their numbers; empty until `learn`, unless they are declared.
        declared: Whether the split that is fitted on declares its classes.
        notes: What a reader of the result must know about the matching.
    """

    def __init__(
        self, fit_feature: Any, score_feature: Any, fit_split: str, score_split: str, what: str = "class"
    ) -> None:
        fit, score = declared_names(fit_feature), declared_names(score_feature)
        self.declared = fit is not None
        self.notes: list[str] = []
        self._splits, self._what = {"fit": fit_split, "score": score_split}, what
        self._names = {"fit": _names_for(fit, score), "score": _names_for(score, fit)}
        self._number_of: dict[str, int] = {}
        self._set(fit or [])
        if fit is not None and score is not None and fit != score:
            if fit[: len(score)] != score and score[: len(fit)] != fit:
                self.notes.append(f"splits {fit_split} and {score_split} number their classes differently: by name")
        elif (fit is None) != (score is None):
            self._note_half_declared(fit, score, score_feature if fit is not None else fit_feature)

    def learn(self, values: Iterable[Any]) -> None:
        """Learn the classes from the label values of the split that is fitted on, unless they are declared."""
        if self.declared:
            return
        known = {value for value in values if not _missing(value)}
        ordered = sorted(known, key=lambda value: (isinstance(value, str), value))
        self._set([self._name(value, "fit") for value in ordered])

    def fit_numbers(self, values: Iterable[Any]) -> list[int]:
        """Return the class number of each label value of the split that is fitted on.

        Raises:
            UserError: an image has no label (-1 or None), or a value that is no class.
        """
        return self._numbers(values, "fit")

    def score_numbers(self, values: Iterable[Any]) -> list[int]:
        """Return the class number of each label value of the scored split.

        Raises:
            UserError: an image has no label (-1 or None), or a class that the split that is fitted on does not have.
        """
        return self._numbers(values, "score")

    def compare(self, fitted: Iterable[int], scored: Iterable[int]) -> list[str]:
        """Compare the classes of which the two splits have examples.

        Args:
            fitted: Class numbers of the split that is fitted on.
            scored: Class numbers of the scored split.

        Returns:
            A note if only the split that is fitted on has examples of some classes, and the notes on the matching.

        Raises:
            UserError: only the scored split has examples of some classes: no classifier can name them.
        """
        fit, score = set(fitted), set(scored)
        if score - fit:
            raise self._only_scored([self.names[number] for number in sorted(score - fit)])
        missing = [self.names[number] for number in sorted(fit - score)] if score else []
        notes = [f"{_are(missing, self._what)} only in split {self._splits['fit']}: {list_of_names(missing)}"]
        return [*self.notes, *(notes if missing else [])]

    def _set(self, names: Sequence[str]) -> None:
        self.names = [*names]
        self._number_of = {name: number for number, name in enumerate(self.names)}

    def _name(self, value: Any, side: str) -> str:
        names = self._names[side]
        if names is None or isinstance(value, (str, float)) or not 0 <= value < len(names):
            return str(value)
        return names[int(value)]

    def _numbers(self, values: Iterable[Any], side: str) -> list[int]:
        numbers: list[int] = []
        unknown: dict[str, None] = {}
        for value in values:
            if _missing(value):
                raise UserError(f"split {self._splits[side]} has images without a label; score another with split")
            name = self._name(value, side)
            if name in self._number_of:
                numbers.append(self._number_of[name])
            else:
                unknown[name] = None
        if unknown and side == "fit":
            raise UserError(
                f"split {self._splits[side]}: {self._what} {next(iter(unknown))} is not one of the {len(self.names)} "
                "that it declares"
            )
        if len(unknown) == 1:
            where = f"only in split {self._splits[side]}, not in the one that is fitted on"
            raise UserError(f"{self._what} {next(iter(unknown))} exists {where}")
        if unknown:
            raise self._only_scored([*unknown])
        return numbers

    def _only_scored(self, names: list[str]) -> UserError:
        split = self._splits["score"]
        return UserError(
            f"{_plural(self._what)} that exist only in split {split}, not in the one that is fitted on: "
            f"{list_of_names(names)}"
        )

    def _note_half_declared(self, fit: list[str] | None, score: list[str] | None, other_feature: Any) -> None:
        """Say it if the integers of one split are taken as numbers of the names that the other split declares."""
        declaring, plain = ("fit", "score") if fit is not None else ("score", "fit")
        if self._names[plain] is not None and "int" in str(getattr(_inner(other_feature), "dtype", "")):
            self.notes.append(
                f"split {self._splits[plain]} holds numbers without names: they were taken in the order of the names "
                f"that split {self._splits[declaring]} declares"
            )


def class_index(fit: Any, score: Any, column: str, fit_split: str, score_split: str) -> ClassIndex:
    """Make the index of the classes of a label column that two `datasets` objects have."""
    return ClassIndex(label_feature(fit, column), label_feature(score, column), fit_split, score_split)


def label_feature(dataset: Any, column: str) -> Any:
    """Return the feature of a column, or None if the data set declares none."""
    return dataset.features.get(column) if dataset.features else None


def declared_names(feature: Any) -> list[str] | None:
    """Return the names that a ClassLabel, or a list of them, declares; None for every other feature."""
    names = getattr(_inner(feature), "names", None)
    return None if names is None else [str(name) for name in names]


def list_of_names(names: Sequence[str]) -> str:
    """Write the first five names, and show if there are more."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _names_for(own: list[str] | None, other: list[str] | None) -> list[str] | None:
    """Names that a split's integers stand for: its own; else the other's, unless those are numbers themselves."""
    if own is not None or other is None or all(name.lstrip("-").isdigit() for name in other):
        return own
    return other


def _inner(feature: Any) -> Any:
    """Return the feature of the entries of a list, or the feature itself."""
    return getattr(feature, "feature", feature)


def _missing(value: Any) -> bool:
    """Tell whether a label is missing: None, or -1 as the Hub's test splits write it."""
    return value is None or (not isinstance(value, str) and value == -1)


def _are(names: list[str], what: str) -> str:
    return f"1 {what} is" if len(names) == 1 else f"{len(names)} {_plural(what)} are"


def _plural(what: str) -> str:
    return what[:-1] + "ies" if what.endswith("y") else what + "es"
