// Tells people things: messages on the page, one quiet voice for screen readers, and what is done
// while they look elsewhere.

import { fill, h, icon, kept, setText } from "./dom.js";
import { on } from "./store.js";
import { credits, isFinal } from "./words.js";

const TOASTS_MAX = 3;
const TOAST_MS = 6_000;
const TOAST_LONG_MS = 14_000;
const VOICE_MS = 5_000;
const TITLE_MS = 1_000;
const PLAIN = "Reelworks";

let viewTitle = "";
let unseen = 0;
let percent = null;

/** Shows a message; one about a failure that can be mended stays until it is acted on or sent away. */
export function toast(text, { isBad = false, action = null } = {}) {
	const place = document.getElementById("toasts");
	const element = h(
		"div",
		{ class: isBad ? "toast bad" : "toast" },
		icon(isBad ? "alert" : "check"),
		h("p", null, text),
		action && h("button", { type: "button", class: "plain", onclick: () => (leave(), action.do()) }, action.label),
		h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => leave() }, icon("close")),
	);
	const leave = () => element.remove();
	place.append(element);
	while (place.children.length > TOASTS_MAX) place.firstElementChild.remove();
	let timer = 0;
	const wait = () => {
		if (!action || !isBad) timer = setTimeout(leave, isBad || action ? TOAST_LONG_MS : TOAST_MS);
	};
	for (const name of ["pointerenter", "focusin"]) element.addEventListener(name, () => clearTimeout(timer));
	for (const name of ["pointerleave", "focusout"]) element.addEventListener(name, wait);
	wait();
	say(text);
}

const voice = { last_ms: 0, next: "", timer: 0 };

/** Says something to screen readers, at most once in five seconds; the newest is what is said. */
export function say(text) {
	const wait_ms = voice.last_ms + VOICE_MS - Date.now();
	voice.next = text;
	if (wait_ms <= 0) speak();
	else if (!voice.timer) voice.timer = setTimeout(speak, wait_ms);
}

function speak() {
	clearTimeout(voice.timer);
	voice.timer = 0;
	voice.last_ms = Date.now();
	setText(document.getElementById("announcer"), voice.next);
}

/** Names the view in the window's title. */
export function nameView(title) {
	viewTitle = title;
	writeTitle();
}

/** Shows in the title how far the one that is under way is; null if none is. */
export function showPercent(value) {
	percent = value;
	scheduleTitle();
}

let titleTimer = 0;

// Browsers and people both dislike a title that changes more often.
function scheduleTitle() {
	if (!titleTimer) titleTimer = setTimeout(writeTitle, TITLE_MS);
}

function writeTitle() {
	clearTimeout(titleTimer);
	titleTimer = 0;
	const name = viewTitle ? `${viewTitle} · ${PLAIN}` : PLAIN;
	const state = unseen > 0 ? `(${unseen} ended) ` : percent === null ? "" : `${percent} % · `;
	if (document.title !== state + name) document.title = state + name;
	const link = document.querySelector('link[rel="icon"]');
	const wanted = link.href.replace(/icon(-done)?\.svg$/, unseen > 0 ? "icon-done.svg" : "icon.svg");
	if (link.href !== wanted) link.href = wanted;
}

/** Tells of what ends, driven by the events themselves. */
export function tellOfEnds(open) {
	on("generation", (generation, before) => {
		if (!before || isFinal(before) || !isFinal(generation)) return;
		const sentence = endSentence(generation);
		if (generation.status !== "CANCELED") {
			toast(sentence, {
				isBad: generation.status === "FAILED",
				action: generation.status === "COMPLETED" ? { label: "Watch", do: () => open(generation) } : null,
			});
		} else say(sentence);
		if (document.hidden) {
			unseen += 1;
			scheduleTitle();
			notify(generation, sentence, open);
		}
		if (generation.status === "COMPLETED" && kept.read("sound")) chime();
	});
	document.addEventListener("visibilitychange", () => {
		if (document.hidden || unseen === 0) return;
		unseen = 0;
		writeTitle();
	});
}

function endSentence(generation) {
	const name = shortened(generation.prompt);
	if (generation.status === "COMPLETED") return `Your video is done: “${name}”`;
	const back = generation.cost_credits - generation.charged_credits;
	if (generation.status === "CANCELED") return `Canceled, ${credits(back)} back: “${name}”`;
	return `It failed, ${credits(back)} back: “${name}”`;
}

export function shortened(text, characters_max = 60) {
	const characters = Array.from(text);
	return characters.length > characters_max ? `${characters.slice(0, characters_max - 1).join("").trimEnd()}…` : text;
}

function notify(generation, sentence, open) {
	if (!kept.read("notify") || !("Notification" in window) || Notification.permission !== "granted") return;
	try {
		const note = new Notification(PLAIN, { body: sentence, tag: generation.generation_id });
		note.addEventListener("click", () => {
			window.focus();
			note.close();
			if (generation.status === "COMPLETED") open(generation);
		});
	} catch {
		// Some phones only let service workers do this; the title says it too.
	}
}

/** Two soft notes. */
export function chime() {
	try {
		const audio = new AudioContext();
		[660, 880].forEach((frequency, place) => {
			const tone = audio.createOscillator();
			const volume = audio.createGain();
			const begin = audio.currentTime + place * 0.16;
			tone.frequency.value = frequency;
			volume.gain.setValueAtTime(0.0001, begin);
			volume.gain.exponentialRampToValueAtTime(0.12, begin + 0.02);
			volume.gain.exponentialRampToValueAtTime(0.0001, begin + 0.5);
			tone.connect(volume).connect(audio.destination);
			tone.start(begin);
			tone.stop(begin + 0.55);
		});
		setTimeout(() => audio.close(), 1500);
	} catch {
		// No sound, no harm.
	}
}

/** A line over the page while it does not hear the server. */
export function showConnection(bar, state) {
	const words = {
		offline: "You are offline. What is under way goes on, and the page catches up when you are back.",
		polling: "The live connection is away. The page asks now and then instead.",
	};
	bar.hidden = !words[state];
	if (words[state] && bar.dataset.state !== state) {
		fill(bar, icon("alert"), h("span", null, words[state]));
		say(words[state]);
	}
	bar.dataset.state = state;
}
