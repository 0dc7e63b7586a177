"""Which listings are possible, and what does a repository insist on when it is written?"""

from typing import Any, TypeVar, cast

import pytest
from sqlalchemy import create_engine, func
from sqlalchemy.orm import Session, aliased

from ledger_db import AsyncRepository, Repository
from ledger_db.errors import CursorInvalid
from ledger_db.orm.cursors import encode
from ledger_db.orm.pages import Listing, OrderBy
from tests.support.shop import START, Article, Articles, Place

Anything = TypeVar("Anything")

POSTGRESQL = create_engine("postgresql+psycopg2://").dialect


def sql(listing: Listing[Any], after: str | None = None) -> str:
    """Return the statement of a page as PostgreSQL gets it, without what is selected."""
    statement = str(listing.select((), after, 10).compile(dialect=POSTGRESQL))
    return " ".join(statement[statement.index("FROM") :].split())


def cursor(listing: Listing[Any], *values: object) -> str:
    """Make the cursor of a place in a listing."""
    return encode(listing._order, listing._codecs, values)


def test_one_direction_is_compared_as_a_row_which_an_index_serves() -> None:
    """The thousandth page is found in the index as quickly as the first."""
    listing = Listing(Article, (Article.shelf.desc(), Article.arrived.desc()))

    assert sql(listing, cursor(listing, "b", START, 7)) == (
        "FROM test_orm_article WHERE (test_orm_article.shelf, test_orm_article.arrived, test_orm_article.id) "
        "< (%(param_1)s, %(param_2)s, %(param_3)s) "
        "ORDER BY test_orm_article.shelf DESC, test_orm_article.arrived DESC, test_orm_article.id DESC "
        "LIMIT %(param_4)s"
    )


def test_mixed_directions_are_compared_in_turn_within_a_range_of_the_index() -> None:
    """A row comparison has one direction only; the first column alone still bounds the search."""
    listing = Listing(Article, (Article.arrived.desc(), Article.id))
    found = sql(listing, cursor(listing, START, 7))

    assert "test_orm_article.arrived <= " in found
    assert " OR " in found
    assert found.endswith("ORDER BY test_orm_article.arrived DESC, test_orm_article.id ASC LIMIT %(param_3)s")


def test_a_key_of_several_columns_is_the_order_if_none_is_given() -> None:
    """Every listing is in a total order, so that no row is in two pages."""
    assert sql(Listing(Place)).endswith(
        "ORDER BY test_orm_place.aisle ASC, test_orm_place.level ASC LIMIT %(param_1)s"
    )


@pytest.mark.parametrize(
    ("order_by", "reason"),
    [
        (Article.note, "note, which may be NULL"),
        (Article.shelf.desc().nulls_last(), "columns of its own"),
        (func.lower(Article.shelf).desc(), "columns of its own"),
        (Place.aisle, "columns of its own"),
        (aliased(Article).shelf, "columns of its own"),
    ],
)
def test_an_order_in_which_rows_would_be_skipped_is_refused(order_by: Any, reason: str) -> None:
    """The message names the column and what to take instead."""
    with pytest.raises(ValueError, match=reason):
        Listing(Article, cast("OrderBy", order_by))


@pytest.mark.parametrize(
    "other",
    [
        Listing(Article),
        Listing(Article, Article.arrived.desc()),
        Listing(Article, (Article.arrived, Article.shelf)),
    ],
)
def test_a_cursor_of_another_order_is_refused(other: Listing[Article]) -> None:
    """It would be a place that means nothing here."""
    listing = Listing(Article, Article.arrived)
    values = {"arrived": START, "shelf": "a", "id": 1}
    foreign = cursor(other, *(values[key.name] for key in other._keys))

    with pytest.raises(CursorInvalid):
        listing.select((), foreign, 10)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_page_has_at_least_one_row(limit: int) -> None:
    """A page of nothing would have no end to go on from."""
    with pytest.raises(ValueError, match="above 0"):
        Listing(Article).select((), None, limit)


def test_a_repository_without_a_model_says_how_to_give_it_one() -> None:
    """The mistake shows where it is made, not in some statement later."""
    with pytest.raises(TypeError, match=r"class Accounts\(Repository\[Account\]\)"):
        Repository(Session())
    with pytest.raises(TypeError, match="write the class itself"):

        class Forward(Repository["Article"]):
            pass


def test_a_repository_of_some_kind_gets_its_model_from_the_one_that_is_used() -> None:
    """A team's own repository class can stand between ours and the model's."""

    class Audited(AsyncRepository[Anything]):
        pass

    class AuditedArticles(Audited[Article]):
        pass

    class Special(Articles):
        pass

    assert AuditedArticles.model is Article
    assert Special.model is Article
    assert not hasattr(Audited, "model")
