"""Registry of domains. A new domain is one new file with a `Domain` and one line in `DOMAINS`.

What the page and the command line ask is here, without torch: vocabularies and training are imported when
they are first used.
"""

from __future__ import annotations

from triplaneturbo.domains.domain import Domain, Measure
from triplaneturbo.domains.open_vocabulary import OPEN_VOCABULARY
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (TOY_WORLD, OPEN_VOCABULARY)}


def find_domain(name: str) -> Domain:
    """Return the domain of that name.

    Raises:
        UserError: the name is unknown.
    """
    if name not in DOMAINS:
        raise UserError(
            f"The model has an unknown domain, {shown(name)}: update triplaneturbo, or use a model of one of"
            f" {', '.join(DOMAINS)}."
        )
    return DOMAINS[name]


def measures() -> dict[str, Measure]:
    """Return the measures of all domains by key: the scores of a run do not say which domain they are of."""
    return {measure.key: measure for domain in DOMAINS.values() for measure in domain.measures}
