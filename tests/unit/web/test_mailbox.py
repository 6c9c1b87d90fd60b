"""What a reader of the stream ends up with is the newest of everything, however it reads."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.client.credits import Balance
from services.client.generations import Eta, Generation, Status
from services.web.event_ids import Position
from services.web.mailbox import KNOWN_MAX, SENT_MAX, WAITING_MAX, Letter, Mailbox, Reset
from tests.unit.web.mail import NOW, balance, generation

SECOND = timedelta(seconds=1)
OVERLAP = 10 * SECOND
"""How much further back than asked for the service looks."""


def begun(*known: Generation, position: Position | None = None) -> Mailbox:
    """A mailbox whose reader has caught up, but for taking what was known."""
    mailbox = Mailbox(position, NOW)
    for one in known:
        mailbox.put_known(one)
    mailbox.end_known()
    return mailbox


def drained(mailbox: Mailbox) -> list[Letter]:
    letters = []
    while (letter := mailbox.take(NOW)) is not None:
        letters.append(letter)
    return letters


def contents(mailbox: Mailbox) -> list[object]:
    return [letter.content for letter in drained(mailbox)]


def test_a_mailbox_without_news_is_empty() -> None:
    assert contents(begun()) == []


def test_changes_wait_until_what_is_known_was_taken() -> None:
    mailbox = Mailbox(None, NOW)
    changed, known = generation("a", 2), generation("b")
    mailbox.put(changed)

    assert contents(mailbox) == []
    mailbox.put_known(known)
    assert contents(mailbox) == [known]
    mailbox.end_known()
    assert contents(mailbox) == [changed]


def test_of_one_generation_only_the_newest_waits() -> None:
    mailbox = begun()
    for version in (1, 3, 2):
        mailbox.put(generation("a", version))

    assert contents(mailbox) == [generation("a", 3)]


def test_what_was_sent_is_not_sent_again() -> None:
    mailbox = begun(generation("a", 2))
    drained(mailbox)

    mailbox.put(generation("a", 1))
    mailbox.put(generation("a", 2))

    assert contents(mailbox) == []


def test_a_new_place_in_the_queue_is_news_of_the_same_version() -> None:
    first = generation("a", queue_position=2)
    mailbox = begun(first)
    drained(mailbox)
    moved_up = replace(first, queue_position=1)
    sooner = replace(moved_up, eta=Eta(NOW, NOW))

    for news in (moved_up, sooner):
        mailbox.put(first)
        mailbox.put(news)
        assert contents(mailbox) == [news]


def test_known_and_changed_at_once_it_is_sent_as_it_changed() -> None:
    mailbox = Mailbox(None, NOW)
    mailbox.put(generation("a", 2))
    mailbox.put(generation("b", 1))
    mailbox.put_known(generation("a", 1))
    mailbox.put_known(generation("b", 2))
    mailbox.end_known()

    assert contents(mailbox) == [generation("b", 2), generation("a", 2)]


def test_changes_are_taken_oldest_first_so_that_a_cut_loses_none() -> None:
    mailbox = begun()
    for seconds in (30, 10, 20):
        mailbox.put(generation(str(seconds), updated_at=NOW + seconds * SECOND))

    assert [letter.position.updated_at for letter in drained(mailbox)] == [
        NOW + seconds * SECOND for seconds in (10, 20, 30)
    ]


def test_a_position_never_goes_back() -> None:
    position = Position(NOW, 3)
    mailbox = begun(position=position)
    mailbox.put(generation("a", updated_at=NOW - SECOND))

    assert [letter.position for letter in drained(mailbox)] == [position]


def test_only_the_newest_balance_is_sent_and_none_that_was_sent() -> None:
    mailbox = begun(position=Position(NOW, 3))
    mailbox.put_balance(balance(3))
    assert contents(mailbox) == []

    for version in (4, 6, 5):
        mailbox.put_balance(balance(version))
    letters = drained(mailbox)

    assert letters == [Letter(balance(6), Position(NOW, 6))]


def test_who_knows_nothing_gets_the_balance_of_an_account_that_never_moved() -> None:
    mailbox = begun()
    mailbox.put_balance(balance(0))

    assert contents(mailbox) == [balance(0)]


def test_a_slow_reader_begins_anew_and_the_mailbox_stays_bounded() -> None:
    mailbox = begun()
    mailbox.put_balance(balance(5))
    drained(mailbox)
    for number in range(WAITING_MAX):
        mailbox.put(generation(str(number)))
    assert mailbox.waiting == WAITING_MAX

    mailbox.put(generation("one more"))
    mailbox.put(generation("and more"))

    assert mailbox.waiting == 0
    # The balance is sent again, and what is known is to be read again before what changes.
    mailbox.put_known(generation("left over"))
    assert contents(mailbox) == [Reset(), balance(5)]
    mailbox.put(generation("change"))
    mailbox.put_known(generation("known"))
    mailbox.end_known()
    assert contents(mailbox) == [generation("known"), generation("change")]


def test_who_begins_anew_is_told_so_first() -> None:
    mailbox = Mailbox(None, NOW, begins_anew=True)
    mailbox.put_balance(balance(1))

    assert contents(mailbox) == [Reset(), balance(1)]


def test_what_is_known_is_bounded_and_so_is_what_is_remembered() -> None:
    mailbox = Mailbox(None, NOW)
    for number in range(SENT_MAX + 1):
        assert mailbox.has_room
        mailbox.put_known(generation(str(number)))
        drained(mailbox)
    for number in range(KNOWN_MAX):
        mailbox.put_known(generation(f"known {number}"))

    assert not mailbox.has_room
    assert len(mailbox._sent) == SENT_MAX


@dataclass
class World:
    """The service, and a page that reads of it through mailboxes, cut off now and then.

    What changes is visible a little later than the time it carries, in any order, but never later
    than the overlap.
    """

    waiting_max: int
    now: datetime = NOW
    versions: Counter[str] = field(default_factory=Counter)
    unseen: list[Generation] = field(default_factory=list)
    rows: dict[str, Generation] = field(default_factory=dict)
    page: dict[str, Generation] = field(default_factory=dict)
    credits: Balance | None = None
    page_credits: Balance | None = None
    position: Position | None = None
    to_read: list[Generation] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.mailbox = Mailbox(None, self.now, waiting_max=self.waiting_max)

    def change(self, name: str, seconds: float) -> None:
        self.now += seconds * SECOND
        for late in [g for g in self.unseen if g.updated_at < self.now - OVERLAP + SECOND]:
            self.show(self.unseen.index(late))
        self.versions[name] += 1
        ended = self.versions[name] % 2 == 0 or name < "e"
        self.unseen.append(
            generation(
                name,
                self.versions[name],
                updated_at=self.now,
                status=Status.COMPLETED if ended else Status.QUEUED,
            )
        )
        self.happened["change"] += 1

    def show(self, index: int) -> None:
        if not self.unseen:
            return
        seen = self.unseen.pop(index % len(self.unseen))
        row = self.rows.get(seen.generation_id)
        if row is None or row.version < seen.version:
            self.rows[seen.generation_id] = seen
            self.mailbox.put(seen)
            self.happened["show"] += 1

    def pay(self) -> None:
        self.credits = balance(1 if self.credits is None else self.credits.version + 1)
        self.mailbox.put_balance(self.credits)

    def read(self) -> None:
        """The service tells one more of what is known."""
        if self.to_read and self.mailbox.has_room:
            self.mailbox.put_known(self.to_read.pop(0))
            self.happened["known"] += 1
        elif not self.to_read:
            self.mailbox.end_known()

    def take(self) -> bool:
        letter = self.mailbox.take(self.now)
        if letter is None:
            return False
        self.position = letter.position
        match letter.content:
            case Generation() as news:
                known = self.page.get(news.generation_id)
                if known is None or known.version <= news.version:
                    self.page[news.generation_id] = news
                self.happened["generation"] += 1
            case Balance() as news:
                self.page_credits = news
                self.happened["balance"] += 1
            case Reset():
                # The page reads its history, and the connection what is unfinished.
                self.page = dict(self.rows)
                self.page_credits = None
                self.to_read = self.known(None)
                self.happened["reset"] += 1
        return True

    def known(self, updated_after: datetime | None) -> list[Generation]:
        rows = self.rows.values()
        if updated_after is None:
            return [row for row in rows if row.status is Status.QUEUED]
        since = updated_after - OVERLAP
        old = [g for g in rows if g.updated_at < since and g.status is Status.QUEUED]
        return old + sorted((g for g in rows if g.updated_at >= since), key=lambda g: g.updated_at)

    def cut(self) -> None:
        """The connection breaks, and comes back, at whatever replica."""
        if self.position is None:
            return
        self.mailbox = Mailbox(self.position, self.now, waiting_max=self.waiting_max)
        if self.credits is not None:
            self.mailbox.put_balance(self.credits)
        self.to_read = self.known(self.position.updated_at)
        self.happened["cut"] += 1

    def settle(self) -> None:
        while self.unseen:
            self.show(0)
        for _ in range(10):
            while self.to_read:
                self.read()
                while self.take():
                    pass
            self.read()
            while self.take():
                pass


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from("abcdefg"), st.sampled_from([0.0, 0.5, 3.0])),
        st.tuples(st.just("change"), st.sampled_from("abcdefg"), st.just(25.0)),
        st.tuples(st.just("show"), st.integers(0, 9)),
        st.tuples(st.just("read")),
        st.tuples(st.just("take")),
        st.tuples(st.just("pay")),
        st.tuples(st.just("cut")),
    ),
    min_size=20,
    max_size=100,
)


def test_whatever_the_order_the_page_ends_with_the_newest_of_everything() -> None:
    happened: Counter[str] = Counter()

    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(steps=STEPS, waiting_max=st.sampled_from([2, 6]))
    def holds(steps: list[tuple[str, ...]], waiting_max: int) -> None:
        world = World(waiting_max)
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
        world.settle()
        happened.update(world.happened)

        newest = {name: version for name, version in world.versions.items() if version}
        assert {name: seen.version for name, seen in world.page.items()} == newest
        assert world.page_credits == world.credits

    holds()
    # A run in which little was taken, or nobody was cut off, would prove nothing.
    assert happened["generation"] > happened["show"] / 4
    for what in ("change", "show", "known", "generation", "balance", "reset", "cut"):
        assert happened[what] >= 50, happened
