// The history: everything that was made, found, filtered, saved and deleted.

import { call } from "./api.js";
import { card, confirmDelete, showProblem, skeletons } from "./cards.js";
import { arrange, button, debounced, fill, h, icon, keepFocus, setText } from "./dom.js";
import { downloadMany } from "./media.js";
import { say, toast } from "./notices.js";
import { generation, on, takeGeneration, takeRemoved } from "./store.js";
import { isFinal } from "./words.js";

const PAGE_SIZE = 24;
const SEARCH_WAIT_MS = 300;
const QUERY_CHARACTERS_MAX = 100;
const DELETED_MAX = 100;
const STATUSES = [["", "Everything"], ["COMPLETED", "Done"], ["PROCESSING", "In the making"], ["QUEUED", "Queued"], ["FAILED", "Failed"], ["CANCELED", "Canceled"]];
const KINDS = [["", "Words and pictures"], ["TEXT_TO_VIDEO", "From words"], ["IMAGE_TO_VIDEO", "From a picture"]];

export class History {
	constructor() {
		this.title = "History";
		this.cards = new Map();
		this.order = [];
		this.selected = new Set();
		this.nextPage = "";
		this.asked = 0;
		this.build();
		on("generation", (one) => this.take(one));
		on("removed", (id) => this.drop(id));
		on("reset", () => this.element.isConnected && this.load());
	}

	build() {
		const reload = debounced(() => this.filter(), SEARCH_WAIT_MS);
		this.query = h("input", { type: "search", id: "q", maxlength: QUERY_CHARACTERS_MAX, placeholder: "Words of the prompt", oninput: reload });
		this.status = select("status", STATUSES, () => this.filter());
		this.kind = select("kind", KINDS, () => this.filter());
		this.grid = h("div", { class: "reel sheet" });
		this.nothing = h("div", { class: "nothing", hidden: true });
		this.moreButton = button("Load more", { class: "plain", onclick: () => this.loadMore() });
		this.more = h("p", { class: "load-more", hidden: true }, this.moreButton);
		this.selectToggle = h("button", { type: "button", class: "plain", "aria-pressed": "false", onclick: () => this.toggleSelecting() }, "Select");
		this.tools = this.buildTools();
		this.element = h(
			"div",
			{ class: "history" },
			h("div", { class: "line head" }, h("h1", { tabindex: -1 }, "History"), this.selectToggle),
			h(
				"form",
				{ class: "filters", role: "search", onsubmit: (event) => (event.preventDefault(), this.filter()) },
				h("div", { class: "field search" }, h("label", { for: "q", class: "unseen" }, "Search"), icon("search"), this.query),
				h("div", { class: "field" }, h("label", { for: "status", class: "unseen" }, "Status"), this.status),
				h("div", { class: "field" }, h("label", { for: "kind", class: "unseen" }, "Made from"), this.kind),
			),
			this.tools,
			this.grid,
			this.nothing,
			this.more,
		);
	}

	buildTools() {
		this.chosen = h("p", { class: "chosen" });
		this.saveAll = button("Download", { class: "plain", onclick: () => this.saveSelected() }, "download");
		this.deleteAll = button("Delete", { class: "danger", onclick: () => this.deleteSelected() }, "trash");
		return h(
			"div",
			{ class: "tools", role: "group", "aria-label": "With those selected", hidden: true },
			this.chosen,
			button("Select all shown", { class: "plain", onclick: () => this.selectAll(true) }),
			button("Select none", { class: "plain", onclick: () => this.selectAll(false) }),
			this.saveAll,
			this.deleteAll,
		);
	}

	show() {
		const address = new URLSearchParams(location.search);
		this.query.value = address.get("q") ?? "";
		this.status.value = address.get("status") ?? "";
		this.kind.value = address.get("kind") ?? "";
		this.load();
	}

	get filters() {
		const filters = new URLSearchParams();
		if (this.status.value) filters.set("status", this.status.value);
		if (this.kind.value) filters.set("kind", this.kind.value);
		if (this.query.value.trim()) filters.set("q", this.query.value.trim());
		return filters;
	}

	filter() {
		const filters = String(this.filters);
		window.history.replaceState(null, "", `/history${filters ? `?${filters}` : ""}`);
		this.load();
	}

	async load() {
		this.order = [];
		this.cards.clear();
		this.selectAll(false);
		this.nextPage = "";
		this.nothing.hidden = true;
		this.more.hidden = true;
		fill(this.grid, skeletons(8));
		await this.read();
	}

	async loadMore() {
		const first = this.order.length;
		await this.read();
		// The keyboard goes on where the new ones begin.
		this.grid.children[first]?.querySelector("button, input")?.focus();
	}

	async read() {
		const asked = (this.asked += 1);
		const filters = this.filters;
		filters.set("page_size", PAGE_SIZE);
		if (this.nextPage) filters.set("page_token", this.nextPage);
		this.moreButton.ariaBusy = "true";
		try {
			const page = await call("GET", `/api/generations?${filters}`);
			if (asked !== this.asked) return;
			this.nextPage = page.next_page_token;
			for (const one of page.generations) {
				const taken = takeGeneration(one);
				if (taken && !this.cards.has(taken.generation_id)) this.add(taken, this.order.length);
			}
			this.draw();
			say(`${this.order.length}${this.nextPage ? " or more" : ""} found.`);
		} catch (error) {
			if (asked !== this.asked) return;
			if (this.order.length === 0) this.grid.replaceChildren();
			showProblem(error, () => this.read());
		} finally {
			this.moreButton.ariaBusy = null;
		}
	}

	add(one, place) {
		const selectable = {
			has: (id) => this.selected.has(id),
			set: (id, isOn) => {
				if (isOn) this.selected.add(id);
				else this.selected.delete(id);
				this.drawTools();
			},
		};
		this.cards.set(one.generation_id, card(one, { selectable }));
		this.order.splice(place, 0, one.generation_id);
	}

	/** Takes what happens: what is shown is updated, what is new and fits is put in front. */
	take(one) {
		const fits = (!this.status.value || this.status.value === one.status) && (!this.kind.value || this.kind.value === one.kind);
		const known = this.cards.get(one.generation_id);
		if (known) {
			known.update(one);
			if (!fits) this.drop(one.generation_id);
			return;
		}
		if (!fits || !this.element.isConnected || this.query.value.trim()) return;
		const newest = generation(this.order[0]);
		const isNew = newest ? Date.parse(one.create_time) > Date.parse(newest.create_time) : !this.nothing.hidden;
		if (!isNew) return;
		this.add(one, 0);
		this.draw();
	}

	drop(id) {
		if (!this.cards.delete(id)) return;
		this.order = this.order.filter((each) => each !== id);
		this.selected.delete(id);
		this.draw();
	}

	draw() {
		keepFocus(() => arrange(this.grid, this.order.map((id) => this.cards.get(id).element)));
		this.more.hidden = !this.nextPage;
		const isEmpty = this.order.length === 0;
		this.nothing.hidden = !isEmpty;
		if (isEmpty) this.drawNothing();
		this.drawTools();
	}

	drawNothing() {
		const isFiltered = String(this.filters) !== "";
		fill(
			this.nothing,
			h("h2", null, isFiltered ? "Nothing fits" : "Nothing here yet"),
			h("p", null, isFiltered ? "No video has these words and this state." : "What you make is kept here until you delete it."),
			isFiltered
				? button("Show everything", { class: "plain", onclick: () => this.clear() })
				: h("a", { href: "/", class: "plain" }, "Make a video"),
		);
	}

	clear() {
		this.query.value = this.status.value = this.kind.value = "";
		this.filter();
		this.query.focus();
	}

	toggleSelecting() {
		const isOn = this.selectToggle.ariaPressed !== "true";
		this.selectToggle.ariaPressed = isOn;
		setText(this.selectToggle, isOn ? "Done selecting" : "Select");
		this.grid.classList.toggle("selecting", isOn);
		this.tools.hidden = !isOn;
		if (!isOn) this.selectAll(false);
		this.drawTools();
	}

	selectAll(isOn) {
		this.selected = new Set(isOn ? this.order : []);
		for (const box of this.grid.querySelectorAll(".select input")) box.checked = isOn;
		this.drawTools();
	}

	drawTools() {
		const count = this.selected.size;
		setText(this.chosen, `${count} selected`);
		this.deleteAll.disabled = count === 0;
		this.saveAll.disabled = !this.selectedGenerations().some((one) => one.video_uri);
	}

	selectedGenerations() {
		return [...this.selected].map(generation).filter(Boolean);
	}

	async saveSelected() {
		const videos = this.selectedGenerations().filter((one) => one.video_uri);
		const label = this.saveAll.querySelector("span");
		this.saveAll.ariaBusy = "true";
		try {
			await downloadMany(videos, (count) => setText(label, `${count} of ${videos.length}`));
		} catch (error) {
			if (error.problem) showProblem(error, () => this.saveSelected());
			else toast("Not all of these videos could be read, so nothing was saved.", { isBad: true });
		} finally {
			this.saveAll.ariaBusy = null;
			setText(label, "Download");
		}
	}

	async deleteSelected() {
		const all = this.selectedGenerations();
		const ended = all.filter(isFinal).map((one) => one.generation_id);
		const left = all.length - ended.length;
		if (ended.length === 0) {
			toast("These are still being made. Cancel them first.", { isBad: true });
			return;
		}
		if (!(await confirmDelete(ended.length))) return;
		try {
			let unfinished = left;
			let gone = 0;
			for (let place = 0; place < ended.length; place += DELETED_MAX) {
				const answer = await call("POST", "/api/generations/delete", { generation_ids: ended.slice(place, place + DELETED_MAX) });
				[...answer.deleted_ids, ...answer.unknown_ids].forEach(takeRemoved);
				gone += answer.deleted_ids.length;
				unfinished += answer.unfinished_ids.length;
			}
			toast(`${gone} deleted.${unfinished ? ` ${unfinished} still being made stay.` : ""}`);
			if (this.order.length === 0 && this.nextPage) this.load();
		} catch (error) {
			showProblem(error, () => this.deleteSelected());
		}
	}
}

const select = (id, options, changed) =>
	h("select", { id, onchange: changed }, options.map(([value, label]) => h("option", { value }, label)));
