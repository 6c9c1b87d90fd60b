// The studio: the form, what is being made, and the newest videos.

import { card, skeletons } from "./cards.js";
import { Composer } from "./composer.js";
import { arrange, fill, h, keepFocus, leader } from "./dom.js";
import { showPercent } from "./notices.js";
import { allGenerations, on } from "./store.js";
import { isFinal } from "./words.js";

const RECENT_MAX = 7;
const TIME_MS = 5_000;
const EXAMPLES = [
	"A paper boat drifts down a rain-soaked street at night, neon reflections, low angle",
	"Steam curls from a cup of tea by a window, first light, macro, shallow focus",
	"An old lighthouse in a storm, waves breaking slowly, aerial shot",
];

export class Studio {
	constructor() {
		this.title = "Studio";
		this.cards = new Map();
		this.composer = new Composer();
		this.making = h("div", { class: "making" });
		this.recent = h("div", { class: "reel" });
		this.makingTitle = h("h2", null, "In the making");
		this.recentTitle = h("div", { class: "line" }, h("h2", null, "Latest"), h("a", { href: "/history", class: "link" }, "All videos"));
		this.empty = this.drawEmpty();
		this.set = h("section", { class: "set", "aria-label": "Your videos" });
		this.element = h("div", { class: "studio" }, h("h1", { class: "unseen", tabindex: -1 }, "Studio"), this.composer.element, this.set);
		fill(this.set, this.recentTitle, h("div", { class: "reel" }, skeletons(4)));
		for (const name of ["generation", "removed", "listed"]) on(name, () => this.draw());
		setInterval(() => document.hidden || this.cards.forEach((one) => one.refresh()), TIME_MS);
	}

	draw() {
		const all = allGenerations();
		const unfinished = all.filter((one) => !isFinal(one));
		const recent = all.filter(isFinal).slice(0, RECENT_MAX);
		showPercent(unfinished.find((one) => one.progress_percent > 0)?.progress_percent ?? null);
		// The newest video is shown large; what ended without one takes no such room.
		const feature = recent.find((one) => one.video_uri);
		const inOrder = feature ? [feature, ...recent.filter((one) => one !== feature)] : recent;
		const [making, made] = [unfinished, inOrder].map((some) => some.map((one) => this.cardOf(one)));
		made.forEach((element, place) => element.classList.toggle("feature", inOrder[place] === feature));
		const shown = new Set([...unfinished, ...recent].map((one) => one.generation_id));
		for (const id of this.cards.keys()) if (!shown.has(id)) this.cards.delete(id);
		keepFocus(() => {
			arrange(this.making, making);
			arrange(this.recent, made);
			arrange(
				this.set,
				all.length === 0
					? [this.empty]
					: [...(making.length ? [this.makingTitle, this.making] : []), ...(made.length ? [this.recentTitle, this.recent] : [])],
			);
		});
	}

	cardOf(generation) {
		const known = this.cards.get(generation.generation_id);
		if (known) {
			if (known.generation !== generation) known.update(generation);
			return known.element;
		}
		const made = card(generation);
		this.cards.set(generation.generation_id, made);
		return made.element;
	}

	drawEmpty() {
		const hand = leader();
		hand.show("5", 0.22);
		return h(
			"div",
			{ class: "empty" },
			hand.element,
			h(
				"div",
				null,
				h("h2", null, "Your first take"),
				h("p", null, "Say what happens, press the button, and it appears here. If it fails, the credits come back by themselves."),
				h("p", { class: "hint", id: "examples" }, "Or begin with one of these:"),
				h(
					"ul",
					{ class: "examples", "aria-labelledby": "examples" },
					EXAMPLES.map((example) => h("li", null, h("button", { type: "button", class: "plain", onclick: () => this.composer.suggest(example) }, example))),
				),
			),
		);
	}
}
