"""Bugs that a ledger can have, each as exact replacements in today's source."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEDGER = "services/credits/ledger.py"
STORE = "services/credits/store.py"
STATEMENTS = "services/credits/statements.py"
VERIFICATION = "services/credits/verification.py"
MIGRATIONS = "services/credits/migrations/versions"
GROUP_COMMIT = "services/runtime/group_commit.py"
DATABASE = "services/runtime/database.py"


@dataclass(frozen=True)
class Replacement:
    """A piece of source that occurs once, and what stands in its place."""

    path: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Changes the file under `root`; raises ValueError unless the piece occurs once."""
        file = root / self.path
        source = file.read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.path} has {source.count(self.old)} times: {self.old}")
        file.write_text(source.replace(self.old, self.new))


@dataclass(frozen=True)
class Bug:
    """A mistake that somebody could make."""

    name: str
    replacements: tuple[Replacement, ...]


def bug(name: str, path: str, old: str, new: str) -> Bug:
    return Bug(name, (Replacement(path, old, new),))


BUGS = (
    bug(
        "no state test: whatever is due expires",
        LEDGER,
        "case ReservationState.RESERVED if _due(reservation, now):\n            return _give_back(",
        "case _ if _due(reservation, now):\n            return _give_back(",
    ),
    bug(
        "lost remainder of a partial commit",
        LEDGER,
        "available=reservation.credits - spent,",
        "available=0,",
    ),
    bug(
        "commit above what is reserved",
        LEDGER,
        "case ReservationState.RESERVED if spent > reservation.credits:",
        "case ReservationState.RESERVED if False:",
    ),
    bug(
        "no ceiling on several reimbursements",
        LEDGER,
        "if reimbursed > reservation.committed:",
        "if command.credits > reservation.committed:",
    ),
    bug(
        "no overdraft test",
        LEDGER,
        "enough = command.credits <= account.available",
        "enough = True",
    ),
    bug("version not bumped", LEDGER, "version=account.version + 1,", "version=account.version,"),
    bug(
        "< for <= at expiry",
        LEDGER,
        "return reservation.expires_at <= now",
        "return reservation.expires_at < now",
    ),
    bug(
        "mismatch of a reservation's key ignored",
        LEDGER,
        "if known.credits != command.credits:",
        "if False:",
    ),
    bug(
        "mismatch of a request's key ignored",
        LEDGER,
        "if known.type != command.type:",
        "if False:",
    ),
    bug(
        "refused reservation not remembered",
        LEDGER,
        "return replace(_insufficient(command.credits, account.available), remembered=reservation)",
        "return _insufficient(command.credits, account.available)",
    ),
    bug(
        "refund of what is committed",
        LEDGER,
        "return _refuse(Refusal.ALREADY_COMMITTED, committed=reservation.committed)",
        "return _give_back(\n                account, reservation, ReservationState.REFUNDED,"
        " TransactionType.REFUND, moment\n            )",
    ),
    bug(
        "reserved not restored by a refund",
        LEDGER,
        "reserved=-reservation.credits,\n        reservation=replace(reservation, state=state,",
        "reservation=replace(reservation, state=state,",
    ),
    bug(
        "balance looked at before the key",
        LEDGER,
        "    if known is not None:\n        if known.type",
        "    if account.available + command.credits < 0:\n"
        "        return _insufficient(-command.credits, account.available)\n"
        "    if known is not None:\n        if known.type",
    ),
    bug(
        "time falls along a record",
        LEDGER,
        "moment = max(now, account.updated_at)",
        "moment = now",
    ),
    bug(
        "a batch reads a stale balance",
        STORE,
        "    answers = [work.carry_out(command, now) for command in commands]\n",
        "    answers = []\n"
        "    for command in commands:\n"
        "        stale = _Work(dict(loaded.accounts), work.reservations, work.transactions)\n"
        "        answers.append(stale.carry_out(command, now))\n"
        "        work.accounts[command.user_id] = stale.accounts[command.user_id]\n",
    ),
    Bug(
        "lock and version guard removed",
        (
            Replacement(STATEMENTS, "        .with_for_update(of=accounts)\n", ""),
            Replacement(
                STATEMENTS,
                "                accounts.c.version == moved.table.c.version_before,\n",
                "",
            ),
        ),
    ),
    bug(
        "clock read before the locks",
        STORE,
        "    locked = await batch.lock_accounts(commands)\n"
        "    # After the locks: whoever held them before has written earlier times than this.\n"
        "    now = await read_clock(connection)\n",
        "    now = await read_clock(connection)\n"
        "    locked = await batch.lock_accounts(commands)\n",
    ),
    bug(
        "violated constraints swallowed",
        STORE,
        "        if await self._change(changes) != [len(rows) for rows in changes]:\n",
        "        from sqlalchemy.exc import IntegrityError\n"
        "        try:\n"
        "            await self._change(changes)\n"
        "        except IntegrityError:\n"
        "            return\n"
        "        if False:\n",
    ),
    bug(
        "a repetition is told as new",
        STORE,
        "replayed=True)",
        "replayed=False)",
    ),
    bug(
        "a defect fails its neighbors",
        GROUP_COMMIT,
        "            if len(batch) > 1 and not all_are_locked:\n",
        "            if False:\n",
    ),
    bug(
        "the command of a caller that left is written",
        GROUP_COMMIT,
        "            if not answer.done():  # Else its caller left.\n",
        "            if True:\n",
    ),
    bug(
        "a conflict is taken for refused data",
        DATABASE,
        '_CONFLICT_STATES = {"40001", "40P01", "55P03"}',
        "_CONFLICT_STATES: set[str] = set()",
    ),
    bug(
        "the verification ends with its first range",
        VERIFICATION,
        "            if last == LAST_ID:\n",
        "            if True:\n",
    ),
    bug(
        "the verification overlooks a second resolution",
        VERIFICATION,
        " OR resolved <> CASE to_resolve_by WHEN '' THEN 0 ELSE 1 END",
        "",
    ),
    bug(
        "the verification sums what overflows",
        VERIFICATION,
        'return f"sum(({value}) / {LIMB})", f"sum(({value}) % {LIMB})"',
        'return "0", f"sum({value})"',
    ),
    bug(
        "transactions of SQLite can be removed",
        f"{MIGRATIONS}/0001_ledger.py",
        'for verb in ("UPDATE", "DELETE"):',
        'for verb in ("UPDATE",):',
    ),
    bug(
        "transactions of SQLite can be replaced",
        f"{MIGRATIONS}/0004_changes_within_limits.py",
        '        _refuse("replace", _KNOWN, "transactions are append-only")\n',
        "",
    ),
)
