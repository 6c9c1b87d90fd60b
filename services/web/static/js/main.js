// Starts the page: who is there, which view, what is heard from the server.

import { ApiProblem, call, whenSignedOut } from "./api.js";
import { Settings, signInView } from "./account.js";
import { showProblem } from "./cards.js";
import { button, fill, h, icon, kept, setText } from "./dom.js";
import { History } from "./history.js";
import { resync, startLive, stopLive } from "./live.js";
import { watch } from "./media.js";
import { nameView, showConnection, tellOfEnds } from "./notices.js";
import { forgetOrders, resumeOrders } from "./orders.js";
import { Statement } from "./statement.js";
import { on, session, shownBalance } from "./store.js";
import { Studio } from "./studio.js";

const app = document.getElementById("app");
const VIEWS = [["/", "Studio", "studio"], ["/history", "History", "history"], ["/statement", "Statement", "statement"], ["/settings", "Settings", "settings"]];
const doors = new BroadcastChannel("reelworks.doors");

async function start() {
	whenSignedOut(() => leave("Your session has ended. Sign in again; what you wrote is kept."));
	doors.addEventListener("message", ({ data }) => {
		if (data === session.me?.user_id) return;
		session.isOver = true;
		location.reload();
	});
	try {
		const me = await call("GET", "/api/me");
		await enter(me);
	} catch (error) {
		if (!(error instanceof ApiProblem)) throw error;
		if (error.problem.status !== 401) showAway(error);
	}
}

let isLeaving = false;

/** Shows the sign-in; what was under way here is not in memory afterwards. */
async function leave(words) {
	if (isLeaving) return;
	isLeaving = true;
	if (session.me) {
		stopLive();
		kept.write("words", words, "sessionStorage");
		location.reload();
		return;
	}
	const saved = kept.read("words", "sessionStorage");
	kept.write("words", null, "sessionStorage");
	try {
		const view = await signInView(async (me) => {
			await enter(me);
			doors.postMessage(me.user_id);
		}, saved);
		fill(app, view);
		nameView("Sign in");
		view.querySelector("input").focus();
	} catch (error) {
		if (!(error instanceof ApiProblem)) throw error;
		showAway(error);
	}
}

function showAway(error) {
	const isOffline = error.problem.code === "OFFLINE";
	fill(
		app,
		h(
			"main",
			{ class: "away", id: "view" },
			h("h1", null, isOffline ? "You are offline" : "The studio does not answer"),
			h("p", null, "What is being made goes on without this page. It opens as soon as it can."),
			button("Try again", { class: "make", onclick: () => location.reload() }),
		),
	);
	setTimeout(() => location.reload(), 8_000 + Math.random() * 4_000);
}

async function enter(me) {
	session.me = me;
	session.models = await call("GET", "/api/models");
	isLeaving = false;
	const page = new Page();
	fill(app, page.element);
	page.route(false);
	performance.mark("usable");
	startLive();
	const read = () => resync().catch((error) => showProblem(error, read));
	await read();
	resumeOrders(showProblem);
}

async function signOut() {
	try {
		await call("POST", "/api/sign-out");
	} catch (error) {
		showProblem(error, signOut);
		return;
	}
	// The next person at this screen shall not read what this one wrote.
	kept.write(`draft.${session.me.user_id}`, null);
	forgetOrders();
	session.isOver = true;
	stopLive();
	doors.postMessage("");
	location.assign("/");
}

class Page {
	constructor() {
		this.views = { "/": new Studio(), "/history": new History(), "/statement": new Statement(), "/settings": new Settings(signOut) };
		this.links = VIEWS.map(([path, label, drawing]) => h("a", { href: path }, icon(drawing), h("span", null, label)));
		this.count = h("b", { class: "count-number" }, "–");
		this.countWords = h("span", { class: "count-words" }, "credits");
		this.counter = h("a", { class: "counter", href: "/statement" }, this.count, this.countWords);
		this.bar = h("div", { class: "connection", hidden: true });
		this.main = h("main", { id: "view", tabindex: -1 });
		this.element = h(
			"div",
			{ class: "page" },
			h(
				"header",
				{ class: "top" },
				h("a", { class: "wordmark", href: "/", "aria-label": "Reelworks, studio" }, "Reelworks"),
				h("nav", { "aria-label": "Views" }, this.links),
				this.counter,
			),
			this.bar,
			this.main,
		);
		document.addEventListener("click", (event) => this.follow(event));
		addEventListener("popstate", () => this.route(true));
		on("balance", () => this.showBalance());
		on("connection", (state) => showConnection(this.bar, state));
		on("remix", (generation) => {
			this.go("/");
			this.views["/"].composer.remix(generation);
		});
		tellOfEnds(watch);
	}

	follow(event) {
		const link = event.target.closest?.("a[href^='/']");
		if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
		const path = link.pathname;
		if (!this.views[path]) return;
		event.preventDefault();
		this.go(path);
	}

	go(path) {
		if (location.pathname !== path || location.search) history.pushState(null, "", path);
		this.route(true);
	}

	route(moveFocus) {
		document.querySelector("dialog")?.close();
		const path = this.views[location.pathname] ? location.pathname : "/";
		const view = this.views[path];
		for (const link of this.links) link.ariaCurrent = link.pathname === path ? "page" : null;
		if (this.shown !== view) fill(this.main, view.element);
		this.shown = view;
		nameView(view.title);
		view.show?.();
		if (!moveFocus) return;
		scrollTo(0, 0);
		view.element.querySelector("h1").focus({ preventScroll: true });
	}

	showBalance() {
		const balance = shownBalance();
		if (!balance) return;
		setText(this.count, balance.available.toLocaleString("en"));
		setText(this.countWords, balance.reserved ? `credits · ${balance.reserved} reserved` : "credits");
		this.counter.classList.toggle("low", balance.available < session.me.low_credit_warning);
		this.counter.classList.toggle("moving", !balance.isCertain);
	}
}

start();
