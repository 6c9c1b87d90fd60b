// Follows what happens: one event stream for all tabs of a person, polling while there is none.

import { ApiProblem, call, learnClock, now_ms } from "./api.js";
import { allGenerations, forget, on, session, takeBalance, takeGeneration, takeRemoved, tell } from "./store.js";
import { isFinal } from "./words.js";

/** Without a tick for so long, a stream that looks open is dead. Ticks come every 30 s. */
const SILENCE_MS_MAX = 75_000;
const CHECK_MS = 5_000;
const WAIT_MS_MIN = 2_000;
const WAIT_MS_MAX = 30_000;
/** A stream that does not come back in this time is replaced by polling. */
const OPENING_MS_MAX = 5_000;
/** No generation lives longer; when all that is known is older, polling ends. */
const GENERATION_MS_MAX = 6 * 3_600_000;
const PAGE_SIZE = 24;

let follower = null;

/** Follows this person's events until `stopLive`. */
export function startLive() {
	stopLive();
	follower = new Follower(session.me.user_id);
	follower.start();
}

export function stopLive() {
	follower?.stop();
	follower = null;
}

/** Reads the newest page, what was under way, and the balance; each may be away without the other. */
export const resync = () => Promise.all([call("GET", "/api/credits").then(takeBalance), readVideos()]);

async function readVideos() {
	const underWay = allGenerations().filter((generation) => !isFinal(generation));
	const page = await call("GET", `/api/generations?page_size=${PAGE_SIZE}`);
	const listed = new Set(page.generations.map((generation) => generation.generation_id));
	page.generations.reverse().forEach(takeGeneration);
	tell("listed");
	for (const { generation_id: id } of underWay.filter((one) => !listed.has(one.generation_id))) {
		try {
			takeGeneration(await call("GET", `/api/generations/${id}`));
		} catch (error) {
			if (error instanceof ApiProblem && error.problem.status === 404) takeRemoved(id);
			else throw error;
		}
	}
}

class Follower {
	constructor(userId) {
		this.userId = userId;
		this.isStopped = false;
		this.isLeader = false;
		this.source = null;
		this.heard_ms = Date.now();
		this.state = "connecting";
		this.failures = 0;
		this.pollTimer = 0;
		this.openTimer = 0;
		this.letGo = () => {};
		this.leaving = new AbortController();
	}

	start() {
		const { signal } = this.leaving;
		this.channel = new BroadcastChannel("reelworks.events");
		this.channel.addEventListener("message", ({ data }) => this.hearTab(data));
		this.checking = setInterval(() => this.check(), CHECK_MS);
		addEventListener("online", () => this.reopen(), { signal });
		addEventListener("offline", () => this.change("offline"), { signal });
		document.addEventListener("visibilitychange", () => document.hidden || this.check(), { signal });
		// Polling ends with the last video; the next begins it anew.
		this.forgetStore = on("generation", (one, known) => {
			if (!known && !isFinal(one) && this.state === "polling") this.poll(1);
		});
		this.sayToTabs({ question: true });
		this.lead();
	}

	stop() {
		this.isStopped = true;
		this.leaving.abort();
		this.letGo();
		this.forgetStore();
		this.source?.close();
		this.channel.close();
		clearInterval(this.checking);
		clearTimeout(this.pollTimer);
		clearTimeout(this.openTimer);
	}

	/** Waits to be the tab that holds the stream; the lock passes on when that one is closed. */
	lead() {
		if (!navigator.locks) {
			// Only on addresses without https: every tab for itself.
			this.becomeLeader();
			return;
		}
		const held = () => {
			this.becomeLeader();
			return new Promise((resolve) => {
				this.letGo = resolve;
			});
		};
		navigator.locks
			.request(`reelworks.events.${this.userId}`, { signal: this.leaving.signal }, held)
			.catch(() => {});
	}

	becomeLeader() {
		if (this.isStopped) return;
		this.isLeader = true;
		this.open();
	}

	open() {
		clearTimeout(this.openTimer);
		this.source?.close();
		if (!navigator.onLine) {
			this.change("offline");
			return;
		}
		const source = new EventSource("/api/events");
		this.source = source;
		this.heard_ms = Date.now();
		source.addEventListener("open", () => this.opened());
		for (const name of ["generation", "removed", "balance", "tick", "reset", "bye"]) {
			source.addEventListener(name, (event) => this.hear(name, JSON.parse(event.data || "{}"), true));
		}
		source.addEventListener("error", () => this.failed(source));
		this.openTimer = setTimeout(() => this.state === "live" || this.change("polling"), OPENING_MS_MAX);
	}

	opened() {
		clearTimeout(this.openTimer);
		this.failures = 0;
		this.heard_ms = Date.now();
		// The stream begins with what is unfinished; what ended while nobody listened, a page tells.
		if (this.state !== "live") this.catchUp();
		this.change("live");
	}

	failed(source) {
		if (source !== this.source) return;
		if (!navigator.onLine) {
			this.change("offline");
			return;
		}
		clearTimeout(this.openTimer);
		if (source.readyState === EventSource.CONNECTING) {
			// The browser reconnects by itself and says where it was; polling waits to see if it can.
			this.openTimer = setTimeout(() => {
				if (source.readyState !== EventSource.OPEN) this.change("polling");
			}, OPENING_MS_MAX);
			return;
		}
		// After an HTTP error it does not: 401 ends the session by way of the poll, others pass.
		this.failures += 1;
		this.change("polling");
		this.openTimer = setTimeout(() => this.open(), waitAfter(this.failures));
	}

	reopen() {
		this.heard_ms = Date.now();
		if (this.isLeader) this.open();
		if (this.state === "offline") this.change(this.isLeader ? "connecting" : "live");
		this.catchUp();
	}

	check() {
		const isSilent = Date.now() - this.heard_ms > SILENCE_MS_MAX;
		if (!isSilent || this.state === "offline") return;
		this.change("polling");
		if (this.isLeader) this.open();
	}

	/** Takes an event, from the stream or from the tab that has it. */
	hear(name, data, isMine) {
		this.heard_ms = Date.now();
		if (isMine) this.sayToTabs({ name, data });
		if (name === "generation") takeGeneration(data);
		else if (name === "removed") takeRemoved(data.generation_id);
		else if (name === "balance") takeBalance(data);
		else if (name === "tick") learnClock(data.time);
		else if (name === "reset") {
			forget();
			this.catchUp().then(() => tell("reset"));
		}
		// After `bye` the server closes the stream, and the browser opens another one.
		if (!isMine) this.change("live");
	}

	hearTab({ userId, name, data, question, state }) {
		if (userId !== this.userId) return;
		if (name) this.hear(name, data, false);
		else if (question && this.isLeader) this.sayToTabs({ state: this.state });
		else if (state && !this.isLeader) {
			this.heard_ms = Date.now();
			this.change(state);
		}
	}

	sayToTabs(message) {
		this.channel.postMessage({ userId: this.userId, ...message });
	}

	change(state) {
		if (this.isStopped || this.state === state) return;
		const before = this.state;
		this.state = state;
		tell("connection", state, before);
		if (this.isLeader) this.sayToTabs({ state });
		clearTimeout(this.pollTimer);
		if (state === "polling") this.poll(1);
	}

	poll(times) {
		clearTimeout(this.pollTimer);
		this.pollTimer = setTimeout(async () => {
			if (this.state !== "polling") return;
			await this.catchUp();
			const isWaiting = allGenerations().some(
				(one) => !isFinal(one) && now_ms() - Date.parse(one.create_time) < GENERATION_MS_MAX,
			);
			// With nothing under way there is nothing to ask for; the stream is still tried.
			if (isWaiting && this.state === "polling") this.poll(times + 1);
		}, waitAfter(times));
	}

	async catchUp() {
		try {
			await resync();
		} catch (error) {
			if (!(error instanceof ApiProblem)) throw error;
		}
	}
}

const waitAfter = (times) => Math.min(WAIT_MS_MIN * 2 ** (times - 1), WAIT_MS_MAX) * (0.75 + Math.random() / 2);
