"""How does anybody check the whole ledger, or one entry, over HTTP?"""

import logging
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from sqlalchemy.exc import SQLAlchemyError

from examples.trust_ledger import ledger, verification
from examples.trust_ledger.chain import START, Link
from examples.trust_ledger.entry_endpoints import EntryId
from examples.trust_ledger.messages import ChainProgress, ChainVerdict, InclusionProof, LedgerRoot
from examples.trust_ledger.problem_documents import OF_AN_ENTRY
from examples.trust_ledger.settings import SettingsDep
from examples.trust_ledger.verification import Progress, TreeHead
from ledger_db.errors import LedgerDBError
from ledger_db.fastapi import AsyncSessionFactoryDep

log = logging.getLogger(__name__)
router = APIRouter(tags=["chain"])


async def end_of_chain(sessions: AsyncSessionFactoryDep) -> Link:
    """
    Read where the chain ends, before there is an answer.

    Once a stream has begun its status is sent: a database that is away has to be noticed here.  And the
    connection is given back at once: who holds one while waiting for another stands in the way of all.
    """
    async with sessions.begin(read_only=True) as session:
        return await ledger.read_end(session)


EndDep = Annotated[Link, Depends(end_of_chain)]


@router.get("/verify", summary="Verify the chain", operation_id="verify_chain")
async def verify_chain(
    end: EndDep, sessions: AsyncSessionFactoryDep, settings: SettingsDep
) -> AsyncIterator[ChainProgress | ChainVerdict]:
    """
    Recompute the chain from its first entry to its last, and tell about it in lines of JSON.

    The last line is the verdict.  `verified` is null if the database went away on the way: ask again.  A
    stream that ends without a verdict has verified nothing.
    """
    checked = START.id
    try:
        async for step in verification.verify(sessions, end, page_entries=settings.verify_page_entries):
            if isinstance(step, Progress):
                checked = step.checked
                yield ChainProgress.model_validate(step)
            else:
                yield ChainVerdict.model_validate(step)
    except (LedgerDBError, SQLAlchemyError) as error:
        log.warning("verification.broken_off", extra={"checked": checked, "error": type(error).__name__})
        yield ChainVerdict(
            verified=None, entries=checked, hash=None, flaw="the database went away; verify again later"
        )


@router.get("/root", summary="Show the root of the hash tree", operation_id="show_root")
async def show_root(end: EndDep, sessions: AsyncSessionFactoryDep, settings: SettingsDep) -> LedgerRoot:
    """
    Show the root of the hash tree (RFC 9162) over the hashes of all entries.

    Whoever keeps it can check later proofs against it.  The whole ledger is read for it.
    """
    head = _whole(await verification.grow_tree(sessions, end.id, page_entries=settings.verify_page_entries))
    return LedgerRoot(size=head.size, root=head.root.hex())


@router.get(
    "/entries/{entry_id}/proof",
    summary="Prove that an entry is in the ledger",
    operation_id="prove_entry",
    responses=OF_AN_ENTRY,
)
async def prove_entry(
    entry_id: EntryId, end: EndDep, sessions: AsyncSessionFactoryDep, settings: SettingsDep
) -> InclusionProof:
    """
    Show the hashes that lead from one entry up to the root over the whole ledger.

    `examples/trust_ledger/merkle.py` checks such a proof, and needs nothing but Python.
    """
    if entry_id > end.id:
        raise HTTPException(404, f"there is no entry {entry_id}")
    head = _whole(
        await verification.grow_tree(
            sessions, end.id, page_entries=settings.verify_page_entries, prove=entry_id
        )
    )
    return InclusionProof(
        size=head.size,
        root=head.root.hex(),
        index=entry_id - 1,
        entry_hash=head.proven.hex(),
        proof=[step.hex() for step in head.proof],
    )


def _whole(head: TreeHead | None) -> TreeHead:
    if head is None:
        raise HTTPException(500, "the ledger is damaged; verify the chain to see where")
    return head
