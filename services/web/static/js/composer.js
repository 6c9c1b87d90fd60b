// The form that makes videos: what it shall be, what it costs, and the one button that spends.

import { call, now_ms } from "./api.js";
import { debounced, fill, h, kept, setText, showError } from "./dom.js";
import { say, toast } from "./notices.js";
import { online, order } from "./orders.js";
import { PictureField } from "./picture.js";
import { on, session, shownBalance } from "./store.js";
import { showProblem } from "./cards.js";
import { credits, etaLine, explain, fieldOf, isFinal, moment, shortfall } from "./words.js";

const QUOTE_WAIT_MS = 500;
/** The queue moves, so what a quote says of it is asked for again. */
const QUOTE_AGE_MS_MAX = 45_000;
/** A price that ends sooner may end on the way. */
const QUOTE_LEFT_MS_MIN = 10_000;
const DOUBLE_CLICK_MS = 800;
const SEED_MAX = 2 ** 31 - 1;
const KINDS = { text: "TEXT_TO_VIDEO", image: "IMAGE_TO_VIDEO" };
const SHAPES = [["", "Auto"], ["16:9", "Wide 16:9"], ["9:16", "Tall 9:16"]];
const EMPTY = { mode: "text", prompt: "", negative_prompt: "", models: {}, resolution: "", aspect_ratio: "", seed: "", picture: null };

const characters = (text) => Array.from(text.trim()).length;

export class Composer {
	constructor() {
		this.draftKey = `draft.${session.me.user_id}`;
		this.draft = { ...EMPTY, ...kept.read(this.draftKey) };
		this.quote = null;
		this.isBusy = false;
		this.ordered_ms = 0;
		this.save = debounced(() => kept.write(this.draftKey, this.draft), 300);
		// A reload does not wait for that; after signing out nothing is kept.
		addEventListener("pagehide", () => session.isOver || kept.write(this.draftKey, this.draft));
		this.requote = debounced(() => this.quoteQuietly(), QUOTE_WAIT_MS);
		this.picture = new PictureField(session.models.image, (isTaken) => this.pictureChanged(isTaken));
		if (this.draft.picture) this.picture.hold(this.draft.picture);
		this.build();
		this.showChoices();
		this.change();
		on("balance", () => this.showMoney());
		on("connection", () => this.showMoney());
		on("ordered", (generation) => this.ordered(generation));
		setInterval(() => this.isUsed() && this.requote(), QUOTE_AGE_MS_MAX);
	}

	build() {
		const { prompt_characters_max: most } = session.models.models[0];
		this.prompt = h("textarea", {
			id: "prompt",
			name: "prompt",
			rows: 5,
			required: true,
			"aria-describedby": "prompt-count prompt-error",
			placeholder: "A red fox runs through fresh snow at dawn, slow tracking shot…",
			oninput: () => this.set({ prompt: this.prompt.value }),
			onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.element.requestSubmit(),
		});
		this.count = h("span", { id: "prompt-count", class: "count" }, `0 of ${most}`);
		this.promptError = h("p", { class: "error", id: "prompt-error", hidden: true });
		this.modes = choice("mode", "Start from", [["text", "Words"], ["image", "A picture"]], (mode) => this.set({ mode }, true));
		this.models = h("div", { class: "choices models" });
		this.resolutions = h("div", { class: "choices" });
		this.more = h("details", { class: "more" }, h("summary", null, "More"), this.buildMore());
		this.make = h("button", { type: "submit", class: "make", "aria-describedby": "money-after quote" });
		this.after = h("p", { id: "money-after", class: "after" });
		this.quoteLine = h("p", { id: "quote", class: "hint" });
		this.notice = h("p", { class: "error", hidden: true });
		this.element = h(
			"form",
			{ class: "composer", novalidate: true, "aria-label": "Make a video", onsubmit: (event) => (event.preventDefault(), this.submit()) },
			h("div", { class: "clapper", "aria-hidden": "true" }, h("i"), h("i")),
			this.modes.element,
			this.picture.element,
			h(
				"div",
				{ class: "field" },
				h("div", { class: "line" }, h("label", { for: "prompt" }, "What happens in it?"), this.count),
				this.prompt,
				this.promptError,
			),
			h("fieldset", null, h("legend", null, "Model"), this.models),
			h("fieldset", null, h("legend", null, "Resolution"), this.resolutions),
			this.more,
			h("div", { class: "order" }, this.make, this.after, this.quoteLine, this.notice),
		);
		this.element.addEventListener("paste", (event) => this.picture.paste(event));
	}

	buildMore() {
		this.negative = h("input", { id: "negative", type: "text", autocomplete: "off", oninput: () => this.set({ negative_prompt: this.negative.value }), "aria-describedby": "negative-error" });
		this.negativeField = field("negative", "Leave out", this.negative, "For example: text, blur, people");
		this.shapes = choice("shape", "Shape", SHAPES, (aspect_ratio) => this.set({ aspect_ratio }));
		this.seed = h("input", { id: "seed", type: "text", inputmode: "numeric", autocomplete: "off", placeholder: "a new one each time", oninput: () => this.set({ seed: this.seed.value.trim() }), "aria-describedby": "seed-error seed-hint" });
		this.seedField = field("seed", "Seed", this.seed, "The same seed and words give much the same video.");
		return h("div", { class: "more-inside" }, this.negativeField.element, this.shapes.element, this.seedField.element);
	}

	/** What can be chosen now: the mode's models, the model's resolutions, their parameters. */
	get offer() {
		const kind = KINDS[this.draft.mode];
		const models = session.models.models.filter((model) => model.kind === kind);
		const model = models.find((one) => one.model === this.draft.models[kind]) ?? models[0];
		const resolution = model?.resolutions.find((one) => one.resolution === this.draft.resolution) ?? model?.resolutions[0];
		return { kind, models, model, resolution };
	}

	get price() {
		const held = this.heldQuote();
		return held ? held.cost_credits : (this.offer.resolution?.price_credits ?? 0);
	}

	/** Changes the draft; `isChoice` if other choices depend on it. */
	set(changes, isChoice = false) {
		Object.assign(this.draft, changes);
		this.showNotice("");
		if ("prompt" in changes) showError(this.promptError, this.prompt, "");
		if ("seed" in changes) this.seedField.show("");
		if (isChoice) this.showChoices();
		this.change();
	}

	change() {
		this.save();
		this.showCount();
		this.showMoney();
		this.requote();
	}

	pictureChanged(isTaken) {
		const { held } = this.picture;
		this.draft.picture = held?.image_uri ? held : null;
		this.set(isTaken ? { mode: "image" } : {}, isTaken);
	}

	showChoices() {
		const { models, model, resolution, kind } = this.offer;
		const has = new Set(resolution?.parameters ?? []);
		this.modes.set(this.draft.mode);
		this.picture.element.hidden = this.draft.mode !== "image";
		radios(this.models, "model", models.map((one) => ({
			value: one.model,
			label: one.display_name.replace(/ (text|image) to video,/, ""),
			hint: `from ${credits(Math.min(...one.resolutions.map((each) => each.price_credits)))}`,
		})), model?.model, (chosen) => this.set({ models: { ...this.draft.models, [kind]: chosen } }, true));
		radios(this.resolutions, "resolution", (model?.resolutions ?? []).map((one) => ({
			value: one.resolution,
			label: one.resolution,
			hint: credits(one.price_credits),
		})), resolution?.resolution, (chosen) => this.set({ resolution: chosen }, true));
		this.prompt.value = this.draft.prompt;
		this.negative.value = this.draft.negative_prompt;
		this.seed.value = this.draft.seed;
		this.shapes.set(this.draft.aspect_ratio);
		this.negativeField.element.hidden = !has.has("negative_prompt");
		this.shapes.element.hidden = !has.has("aspect_ratio");
		this.seedField.element.hidden = !has.has("seed");
		this.more.hidden = has.size === 0;
	}

	showCount() {
		const { prompt_characters_min: least, prompt_characters_max: most } = this.offer.model;
		const count = characters(this.draft.prompt);
		const missing = count > 0 && count < least ? ` · ${least - count} more` : "";
		setText(this.count, count > most ? `${count - most} too many · ${count} of ${most}` : `${count} of ${most}${missing}`);
		this.count.classList.toggle("wrong", count > most);
	}

	showMoney() {
		const { price } = this;
		const balance = shownBalance();
		const missing = balance ? price - balance.available : 0;
		if (!this.isBusy) fill(this.make, h("span", null, "Make the video"), h("b", null, credits(price)));
		this.make.ariaDisabled = missing > 0 ? "true" : null;
		setText(this.after, balance ? afterLine(price, balance.available) : "");
		this.after.classList.toggle("wrong", missing > 0);
		this.after.classList.toggle("low", missing <= 0 && (balance?.available ?? Infinity) < session.me.low_credit_warning);
		this.showQuote();
	}

	showQuote() {
		const { quote } = this;
		if (!this.heldQuote()) {
			setText(this.quoteLine, this.isReady() ? "" : "Price and waiting time are shown before you click.");
			return;
		}
		const ahead = quote.queue_ahead === 0 ? "Nobody is ahead of you" : `${quote.queue_ahead} ahead of you in our queue`;
		const eta = etaLine(quote.eta, quote.asked_ms);
		setText(this.quoteLine, `${ahead}${eta ? ` · done ${eta.replace(/^about/, "in about")}` : ""} · price held until ${moment(quote.expire_time).replace("today ", "")}`);
	}

	/** Whether the form can be sent as it is. */
	isReady() {
		const { model } = this.offer;
		const count = characters(this.draft.prompt);
		if (count < model.prompt_characters_min || count > model.prompt_characters_max) return false;
		return this.draft.mode === "text" || this.picture.imageUri !== "";
	}

	isUsed() {
		return !document.hidden && this.element.isConnected && this.isReady();
	}

	get wish() {
		const { kind, model, resolution } = this.offer;
		const has = new Set(resolution.parameters);
		const wish = { model: model.model, resolution: resolution.resolution, prompt: this.draft.prompt.trim() };
		const { negative_prompt, aspect_ratio, seed } = this.draft;
		if (has.has("negative_prompt") && negative_prompt.trim()) wish.negative_prompt = negative_prompt.trim();
		if (has.has("aspect_ratio") && aspect_ratio) wish.aspect_ratio = aspect_ratio;
		if (has.has("seed") && seed !== "") wish.seed = Number(seed);
		if (this.draft.mode === "image") wish.image_uri = this.picture.imageUri;
		return { kind, wish };
	}

	/** Returns the quote for what is chosen, if it still holds. */
	heldQuote() {
		const { kind, model, resolution } = this.offer;
		const isSame = this.quote?.terms === `${kind} ${model?.model} ${resolution?.resolution}`;
		return isSame && Date.parse(this.quote.expire_time) - now_ms() > QUOTE_LEFT_MS_MIN ? this.quote : null;
	}

	async askQuote({ kind, wish }) {
		const terms = `${kind} ${wish.model} ${wish.resolution}`;
		const quote = await call("POST", "/api/quotes", { kind, ...wish });
		this.quote = { ...quote, terms, asked_ms: now_ms() };
		this.showMoney();
		return this.quote;
	}

	async askQuoteWhenOnline(wanted) {
		for (;;) {
			try {
				return await this.askQuote(wanted);
			} catch (error) {
				if (error.problem?.code !== "OFFLINE") throw error;
				await online();
			}
		}
	}

	async quoteQuietly() {
		if (!this.isUsed() || this.isBusy || !navigator.onLine) return;
		const held = this.heldQuote();
		if (held && now_ms() - held.asked_ms < QUOTE_AGE_MS_MAX - 1000) {
			this.showMoney();
			return;
		}
		try {
			await this.askQuote(this.wish);
		} catch (error) {
			if (!error.problem) throw error;
			if (error.problem.status === 422) this.showFieldErrors(error.problem);
		}
	}

	async submit() {
		// The second half of a double click comes when the first may already be answered.
		const isSecondHalf = this.draft.prompt === "" && Date.now() - this.ordered_ms < DOUBLE_CLICK_MS;
		if (this.isBusy || isSecondHalf || !this.validate()) return;
		const balance = shownBalance();
		if (balance && balance.available < this.price) {
			this.showNotice(shortfall({ required: this.price, available: balance.available }));
			return;
		}
		const shownPrice = this.price;
		this.setBusy(true);
		try {
			await this.orderAt(shownPrice, this.wish);
		} catch (error) {
			if (!error.problem) throw error;
			if (error.problem.status === 422 && this.showFieldErrors(error.problem)) return;
			if (error.again) showProblem(error);
			else if (error.problem.status !== 401) this.showNotice(explain(error.problem));
		} finally {
			this.setBusy(false);
		}
	}

	/** Orders what is chosen if it costs what the button says; else shows the new price and waits. */
	async orderAt(shownPrice, wanted, isAgain = false) {
		const { kind, wish } = wanted;
		const quote = this.heldQuote() ?? (await this.askQuoteWhenOnline(wanted));
		if (quote.cost_credits !== shownPrice) {
			this.showNotice(`The price has changed from ${shownPrice} to ${credits(quote.cost_credits)}. Press again if that is all right.`);
			return;
		}
		const path = kind === KINDS.text ? "/api/generation/text-to-video" : "/api/generation/image-to-video";
		try {
			await order(path, { ...wish, quote_token: quote.quote_token }, quote.cost_credits);
		} catch (error) {
			const isStale = error.problem?.code === "QUOTE_EXPIRED" || error.problem?.errors?.some((one) => fieldOf(one.pointer) === "quote_token");
			if (!isStale || isAgain) throw error;
			this.quote = null;
			await this.orderAt(shownPrice, wanted, true);
		}
	}

	ordered(generation) {
		this.ordered_ms = Date.now();
		// What was written while it waited for an answer is not what was ordered.
		if (this.draft.prompt.trim() === generation.prompt) this.set({ prompt: "" }, true);
		this.clap();
		toast(`Ordered once, for ${credits(generation.cost_credits)}. ${isFinal(generation) ? "It has ended already." : "You can close this page; it goes on."}`);
		if (matchMedia("(max-width: 900px)").matches) document.querySelector(".set")?.scrollIntoView({ block: "start" });
	}

	clap() {
		this.element.classList.remove("clap");
		void this.element.offsetWidth;
		this.element.classList.add("clap");
	}

	setBusy(isBusy) {
		this.isBusy = isBusy;
		this.make.ariaBusy = isBusy ? "true" : null;
		if (isBusy) {
			fill(this.make, h("span", null, navigator.onLine ? "Ordering…" : "Waiting for the connection…"));
		} else this.showMoney();
	}

	validate() {
		const { prompt_characters_min: least, prompt_characters_max: most } = this.offer.model;
		const count = characters(this.draft.prompt);
		const wrong = [];
		if (this.draft.mode === "image" && !this.picture.imageUri) {
			this.picture.show(this.picture.isSending ? "The picture is still on its way." : this.picture.held ? "This picture has expired; choose it again." : "Choose the picture that it starts from.");
			wrong.push(this.picture.input);
		}
		if (count < least || count > most) {
			showError(this.promptError, this.prompt, count > most ? `At most ${most} characters; these are ${count}.` : `At least ${least} characters, so that the model has something to go by.`);
			wrong.push(this.prompt);
		}
		if (this.draft.seed !== "" && !this.seedField.element.hidden && !(/^\d+$/.test(this.draft.seed) && Number(this.draft.seed) <= SEED_MAX)) {
			this.more.open = true;
			this.seedField.show(`A whole number from 0 to ${SEED_MAX.toLocaleString("en")}, or nothing.`);
			wrong.push(this.seed);
		}
		wrong[0]?.focus();
		return wrong.length === 0;
	}

	/** Puts what the API says of fields beside them; returns whether any of them is here. */
	showFieldErrors(problem) {
		const places = {
			prompt: (text) => showError(this.promptError, this.prompt, text),
			negative_prompt: (text) => ((this.more.open = true), this.negativeField.show(text)),
			seed: (text) => ((this.more.open = true), this.seedField.show(text)),
			image_uri: (text) => (this.picture.hold(null), this.picture.show(`The picture cannot be used: ${text}`), (this.draft.picture = null)),
		};
		const shown = (problem.errors ?? []).filter(({ pointer, detail }) => {
			places[fieldOf(pointer)]?.(detail);
			return fieldOf(pointer) in places;
		});
		return shown.length > 0;
	}

	showNotice(text) {
		setText(this.notice, text);
		this.notice.hidden = !text;
		if (text) say(text);
	}

	/** Takes over what another video was made of. */
	remix(generation) {
		const mode = generation.kind === KINDS.image ? "image" : "text";
		this.picture.hold(generation.image_uri ? { name: "the same picture as before", image_uri: generation.image_uri } : null);
		this.draft.picture = this.picture.held;
		this.more.open = Boolean(generation.negative_prompt || generation.aspect_ratio || generation.seed !== null);
		this.set(
			{
				mode,
				prompt: generation.prompt,
				negative_prompt: generation.negative_prompt,
				models: { ...this.draft.models, [generation.kind]: generation.model },
				resolution: generation.resolution,
				aspect_ratio: generation.aspect_ratio,
				seed: generation.seed === null ? "" : String(generation.seed),
			},
			true,
		);
		this.focus();
	}

	/** Takes an example's words. */
	suggest(prompt) {
		this.set({ mode: "text", prompt }, true);
		this.focus();
	}

	focus() {
		this.prompt.focus();
		this.prompt.setSelectionRange(this.prompt.value.length, this.prompt.value.length);
		this.element.scrollIntoView({ block: "nearest" });
	}
}

function afterLine(price, available) {
	if (available < price) {
		return `${shortfall({ required: price, available })} More cannot be bought in this version; whoever runs the studio can grant some.`;
	}
	const low = available < session.me.low_credit_warning ? "Running low: " : "";
	return `${low}${credits(available)} now, ${available - price} after it`;
}

/** Returns a field with a label, a hint and a place for what is wrong with it. */
function field(id, label, input, hint) {
	const error = h("p", { class: "error", id: `${id}-error`, hidden: true });
	const element = h("div", { class: "field" }, h("label", { for: id }, label), input, hint && h("p", { class: "hint", id: `${id}-hint` }, hint), error);
	const show = (text) => showError(error, input, text);
	return { element, show };
}

/** Returns a group of radio buttons that looks like one switch. */
export function choice(name, label, options, chosen) {
	const inputs = options.map(([value]) => h("input", { type: "radio", name, value, onchange: () => chosen(value) }));
	const element = h(
		"fieldset",
		{ class: "switch" },
		h("legend", null, label),
		h("div", { class: "switch-inside" }, options.map(([, text], place) => h("label", null, inputs[place], h("span", null, text)))),
	);
	const set = (value) => inputs.forEach((input) => (input.checked = input.value === value));
	return { element, set };
}

/** Draws radio buttons anew where they differ from those that are there. */
function radios(place, name, options, chosen, changed) {
	const look = JSON.stringify(options);
	if (place.dataset.look !== look) {
		place.dataset.look = look;
		fill(
			place,
			options.map(({ value, label, hint }) =>
				h("label", null, h("input", { type: "radio", name, value, onchange: () => changed(value) }), h("span", null, h("b", null, label), h("small", null, hint))),
			),
		);
	}
	for (const input of place.querySelectorAll("input")) input.checked = input.value === chosen;
}
