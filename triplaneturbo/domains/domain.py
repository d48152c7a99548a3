"""`Domain`: vocabulary, teachers, presets, licence and training of the models of one kind of prompts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triplaneturbo.domains.vocabulary import Vocabulary

PRESETS = ("try", "short", "thorough")


@dataclass(frozen=True)
class License:
    """Licence of the base model.

    Attributes:
        id: license id of the Hugging Face Hub.
        description: the base model and its licence, as the model card of an adapter names them.
    """

    id: str
    description: str


@dataclass(frozen=True)
class Measure:
    """One score of the evaluation of a run, as it is shown to users.

    Attributes:
        key: key in the summaries of the domain's judge.
        name: name in printed lines.
        title: name in the page's table.
        meaning: what it measures and which value is best.
    """

    key: str
    name: str
    title: str
    meaning: str


@dataclass(frozen=True)
class Domain:
    """The models of one kind of prompts. Importing a domain imports neither its vocabulary nor its training.

    Attributes:
        name: value of `domain` in a model's configuration.
        label: name for users, to be followed by "model".
        teachers: names of its teachers, in the order of evaluation.
        presets: fields of `finetune.config.FinetuneConfig` by the names in `PRESETS`.
        license: licence of the base model.
        measures: scores that its judge may give.
        training_source: its `finetune.domain_training.DomainTraining`, as "module:attribute".
        vocabulary_source: its `Vocabulary`, as "module:attribute"; "" if the models take any words.
        has_ground_truth: whether its judge has a reference image of each prompt.
        takes_pictures: whether a picture alone, without a prompt or a mesh, can be refined toward.
        materials: what `looks` adds to a prompt if the models take any words.
        refine_seconds: what a refinement takes on two CPU cores: before the first step, and per step; None:
            unknown.

    Raises:
        ValueError: a preset is missing or unknown.
    """

    name: str
    label: str
    teachers: tuple[str, ...]
    presets: Mapping[str, Mapping[str, Any]]
    license: License
    measures: tuple[Measure, ...]
    training_source: str
    vocabulary_source: str = ""
    has_ground_truth: bool = False
    takes_pictures: bool = False
    materials: tuple[str, ...] = ()
    refine_seconds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if tuple(self.presets) != PRESETS:
            raise ValueError(f"domain {self.name}: presets should be {PRESETS}, not {tuple(self.presets)}")

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that its models know; None if they take any words."""
        if not self.vocabulary_source:
            return None
        vocabulary: Vocabulary = import_attribute(self.vocabulary_source)
        return vocabulary

    def looks(self, prompt: str) -> tuple[str, ...]:
        """Return prompts that suggest other looks for the object of a prompt."""
        vocabulary = self.vocabulary
        if vocabulary is not None:
            return vocabulary.looks(prompt)
        return tuple(f"{prompt}, {material}" for material in self.materials)


def import_attribute(source: str) -> Any:
    """Import and return "module:attribute"."""
    module, _, attribute = source.partition(":")
    return getattr(importlib.import_module(module), attribute)
