// The statement: every change of the credits, grouped by video, and the proof that it adds up.

import { call } from "./api.js";
import { button, debounced, fill, h, icon } from "./dom.js";
import { shortened } from "./notices.js";
import { showProblem } from "./cards.js";
import { generation, on, shownBalance } from "./store.js";
import { credits, moment, signed, transactionName } from "./words.js";

const PAGE_SIZE = 100;
/** Beyond this a person presses for more; the export has it all. */
const ROWS_MAX = 500;
const RELOAD_WAIT_MS = 300;

/** Returns the way to the whole statement as a file. */
export const exportLink = () =>
	h("a", { class: "plain", href: "/api/credits/transactions?format=csv", download: "" }, icon("download"), h("span", null, "Export as CSV"));

export class Statement {
	constructor() {
		this.title = "Statement";
		this.rows = [];
		this.nextPage = "";
		this.sum = h("div", { class: "sum" });
		this.list = h("div", { class: "ledger" });
		this.moreButton = button("Show earlier ones", { class: "plain", onclick: () => this.read(this.rows, this.nextPage) });
		this.more = h("p", { class: "load-more", hidden: true }, this.moreButton);
		this.element = h(
			"div",
			{ class: "statement" },
			h("div", { class: "line head" }, h("h1", { tabindex: -1 }, "Statement"), exportLink()),
			this.sum,
			this.list,
			this.more,
		);
		on("balance", debounced(() => this.element.isConnected && this.show(), RELOAD_WAIT_MS));
	}

	async show() {
		if (this.rows.length === 0) fill(this.list, h("div", { class: "skeleton rows", "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("i"))));
		await this.read([], "");
	}

	/** Reads on after the rows that are known; only the newest reading is shown. */
	async read(known, after) {
		const asked = (this.asked = {});
		const rows = [...known];
		try {
			do {
				const token = after ? `&page_token=${encodeURIComponent(after)}` : "";
				const page = await call("GET", `/api/credits/transactions?page_size=${PAGE_SIZE}${token}`);
				if (asked !== this.asked) return;
				rows.push(...page.transactions);
				after = page.next_page_token;
			} while (after && rows.length < known.length + ROWS_MAX);
			this.rows = rows;
			this.nextPage = after;
			this.draw();
		} catch (error) {
			if (asked === this.asked) showProblem(error, () => this.show());
		}
	}

	draw() {
		this.more.hidden = !this.nextPage;
		this.drawSum();
		if (this.rows.length === 0) {
			fill(this.list, h("p", { class: "nothing" }, "Nothing has moved yet."));
			return;
		}
		fill(
			this.list,
			h(
				"table",
				null,
				h("caption", { class: "unseen" }, "Every change of your credits, newest first"),
				h("thead", null, h("tr", null, ["What", "When", "Change", "Reserved", "Balance after"].map((name, place) => h("th", { scope: "col", class: place > 1 ? "number" : null }, name)))),
				grouped(this.rows).map((group) => drawGroup(group)),
			),
		);
	}

	/** Adds up what is shown, before everybody's eyes. */
	drawSum() {
		const newest = this.rows[0];
		const oldest = this.rows.at(-1);
		const before = oldest ? oldest.available_after - oldest.credits : 0;
		const change = this.rows.reduce((sum, row) => sum + row.credits, 0);
		const end = newest?.available_after ?? 0;
		const isRight = before + change === end && this.rows.every((row, place) => place === 0 || row.available_after === this.rows[place - 1].available_after - this.rows[place - 1].credits);
		const reserved = shownBalance()?.reserved ?? newest?.reserved_after ?? 0;
		const start = this.nextPage || before ? `${before} before these` : "Nothing at the start";
		fill(
			this.sum,
			h("dl", null, fact("Available", end), fact("Reserved for what is under way", reserved)),
			h(
				"p",
				{ class: isRight ? "proof" : "proof wrong" },
				icon(isRight ? "check" : "alert"),
				h(
					"span",
					null,
					isRight
						? `It adds up: ${start.toLowerCase()}, changes of ${signed(change)} in ${this.rows.length} rows, ${credits(end)} now.`
						: `The changes sum to ${signed(before + change)}, the balance says ${end}. Please tell whoever runs the studio.`,
				),
			),
		);
	}
}

const fact = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value.toLocaleString("en")));

/** Returns rows by what they are about, the newest group first, each in the order in which it happened. */
function grouped(rows) {
	const groups = new Map();
	for (const row of rows) {
		const key = row.generation_id || `row ${row.version}`;
		if (!groups.has(key)) groups.set(key, []);
		groups.get(key).unshift(row);
	}
	return [...groups.values()];
}

function drawGroup(rows) {
	const [first] = rows;
	const id = first.generation_id;
	if (!id) return h("tbody", null, drawRow(first, first.description || transactionName(first.type)));
	const made = generation(id);
	const title = made ? `“${shortened(made.prompt, 90)}”` : first.description || "Video generation";
	const outcome = outcomeOf(rows);
	return h(
		"tbody",
		{ class: "group" },
		h("tr", { class: "title" }, h("th", { scope: "rowgroup", colspan: 5 }, h("span", { class: made ? "script" : null }, title), h("span", { class: `outcome ${outcome.look}` }, outcome.text))),
		rows.map((row) => drawRow(row, transactionName(row.type))),
	);
}

function outcomeOf(rows) {
	const reserved = rows.find((row) => row.type === "RESERVATION");
	const cost = reserved ? -reserved.credits : 0;
	const left = rows.reduce((sum, row) => sum + row.reserved_change, 0);
	if (left > 0) return { text: `reserved ${left}`, look: "open" };
	const paid = -rows.reduce((sum, row) => sum + row.credits, 0);
	if (paid === 0) return { text: `reserved ${cost} → refunded ${cost}`, look: "back" };
	if (paid === cost) return { text: `reserved ${cost} → charged ${cost}`, look: "paid" };
	return { text: `reserved ${cost} → charged ${paid}, ${cost - paid} back`, look: "paid" };
}

function drawRow(row, name) {
	const look = row.credits > 0 ? "number plus" : "number";
	return h(
		"tr",
		null,
		h("td", { "data-name": "What" }, name),
		h("td", { "data-name": "When" }, h("time", { datetime: row.create_time, title: new Date(row.create_time).toLocaleString() }, moment(row.create_time))),
		h("td", { class: look, "data-name": "Change" }, signed(row.credits)),
		h("td", { class: "number faint", "data-name": "Reserved" }, row.reserved_change ? signed(row.reserved_change) : ""),
		h("td", { class: "number", "data-name": "Balance after" }, row.available_after.toLocaleString("en")),
	);
}
