// Sends the clicks that spend credits: each once, whatever is clicked, lost or reloaded.
//
// A click's key is kept, for all tabs, until it is answered: the same click again has the same key,
// and so gets the same video.

import { ApiProblem, call, newKey } from "./api.js";
import { kept } from "./dom.js";
import { expectPrice, session, takeBalance, takeGeneration, tell, unexpectPrice } from "./store.js";

const TRIES = 5;
const AGE_MS_MAX = 3_600_000;
/** Prices are held no longer, and people remember no longer what they pressed. */
const RESUME_MS_MAX = 300_000;

function read() {
	const orders = Object.entries(kept.read("orders") ?? {});
	return Object.fromEntries(orders.filter(([, one]) => one.user_id === session.me.user_id && Date.now() - one.sent_ms < AGE_MS_MAX));
}

function keep(key, order) {
	const orders = read();
	if (order) orders[key] = { ...order, sent_ms: Date.now() };
	else delete orders[key];
	kept.write("orders", Object.keys(orders).length ? orders : null);
}

/** What makes two clicks the same; the price is asked for anew. */
const wish = ({ path, body }) => JSON.stringify([path, { ...body, quote_token: 0 }]);

/** Orders a video and returns it; throws ApiProblem, with `again` if sending the same click may help. */
export function order(path, body, price) {
	const made = { path, body, price, user_id: session.me.user_id };
	const [key] = Object.entries(read()).find(([, one]) => wish(one) === wish(made)) ?? [newKey()];
	return send(key, made);
}

/** Sends again what a reload interrupted. What somebody was told of waits for them to press again. */
export function resumeOrders(onProblem) {
	for (const [key, { isTold, ...order }] of Object.entries(read())) {
		if (!isTold && Date.now() - order.sent_ms < RESUME_MS_MAX) send(key, order).catch(onProblem);
	}
}

export function forgetOrders() {
	kept.write("orders", null);
}

async function send(key, order) {
	const { path, body, price } = order;
	keep(key, order);
	expectPrice(key, price);
	try {
		const generation = await sendUntilAnswered(key, path, body);
		keep(key, null);
		takeGeneration(generation);
		tell("ordered", generation);
		// The reservation came before the answer, so that a balance asked for now has it.
		await call("GET", "/api/credits").then(takeBalance, () => {});
		unexpectPrice(key);
		return generation;
	} catch (error) {
		unexpectPrice(key);
		if (!(error instanceof ApiProblem)) throw error;
		const { status } = error.problem;
		const isRepeatable = error.isOpen || status === 429;
		if (isRepeatable) error.again = () => send(key, order);
		// Whoever has to sign in first finds the click still there.
		if (status !== 401) keep(key, isRepeatable ? { ...order, isTold: true } : null);
		throw error;
	}
}

async function sendUntilAnswered(key, path, body) {
	for (let tries = 1; ; tries += 1) {
		try {
			return await call("POST", path, body, { "Idempotency-Key": key });
		} catch (error) {
			if (!(error instanceof ApiProblem) || !error.isOpen) throw error;
			if (error.problem.code === "OFFLINE") await online();
			else if (tries >= TRIES) throw error;
			else await after(Math.max(500 * 2 ** tries, (error.problem.retry_after_s ?? 0) * 1000) * (0.75 + Math.random() / 2));
		}
	}
}

const after = (wait_ms) => new Promise((resolve) => setTimeout(resolve, wait_ms));

/** Waits until there is a network again. */
export const online = () =>
	navigator.onLine ? after(1000) : new Promise((resolve) => addEventListener("online", resolve, { once: true }));
