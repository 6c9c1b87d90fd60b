// Keeps what is known of this person's credits and videos, and tells the views when it changes.

const listeners = new Map();
const generations = new Map();
/** What was deleted, or a late message would bring it back. */
const removed = new Set();
/** Prices of clicks that are not answered yet, by key. */
const expected = new Map();
let balance = null;

export const session = { me: null, models: null, isOver: false };

/** Calls `listener` whenever `name` happens; returns how to stop that. */
export function on(name, listener) {
	if (!listeners.has(name)) listeners.set(name, new Set());
	listeners.get(name).add(listener);
	return () => listeners.get(name).delete(listener);
}

export function tell(name, ...values) {
	for (const listener of [...(listeners.get(name) ?? [])]) listener(...values);
}

/** Takes a generation as it is now; what is older than what is known is dropped. */
export function takeGeneration(generation) {
	const id = generation.generation_id;
	const known = generations.get(id);
	if (known && known.version > generation.version) return known;
	if (removed.has(id)) return null;
	if (generation.delete_time) {
		takeRemoved(id);
		return null;
	}
	// Its addresses work for an hour from now.
	generation.read_ms = Date.now();
	generations.set(id, generation);
	tell("generation", generation, known ?? null);
	return generation;
}

export function takeRemoved(id) {
	if (removed.has(id)) return;
	removed.add(id);
	generations.delete(id);
	tell("removed", id);
}

export function takeBalance(next) {
	if (balance && balance.version > next.version) return;
	settleExpected(next);
	balance = next;
	tell("balance");
}

/** Forgets what the stream says is no longer sure. What comes next is taken whatever its version. */
export function forget() {
	generations.clear();
	removed.clear();
	balance = null;
}

export const generation = (id) => generations.get(id) ?? null;

/** Returns what is known, newest first. */
export function allGenerations() {
	return [...generations.values()].sort(
		(a, b) => Date.parse(b.create_time) - Date.parse(a.create_time) || (a.generation_id < b.generation_id ? 1 : -1),
	);
}

/** Returns the balance as it will be once all clicks are answered; null until it is known. */
export function shownBalance() {
	if (!balance) return null;
	let underWay = 0;
	for (const price of expected.values()) underWay += price;
	return {
		available: balance.available_credits - underWay,
		reserved: balance.reserved_credits + underWay,
		isCertain: underWay === 0,
	};
}

/** Counts on a click's price from the moment of the click. */
export function expectPrice(key, price) {
	expected.set(key, price);
	tell("balance");
}

/** The click was answered, and the balance is known with it or without it. */
export function unexpectPrice(key) {
	if (expected.delete(key)) tell("balance");
}

// The ledger often tells of a reservation before the click is answered; counted twice, the balance
// would dip for a moment.
function settleExpected(next) {
	if (!balance) return;
	let grown = next.reserved_credits - balance.reserved_credits;
	for (const [key, price] of expected) {
		if (grown < price) continue;
		grown -= price;
		expected.delete(key);
	}
}
