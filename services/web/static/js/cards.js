// Draws a job or a video as a card, and does what can be done with it.

import { call, mediaAddress, now_ms } from "./api.js";
import { ask, fill, h, icon, leader, setText } from "./dom.js";
import { download, watch } from "./media.js";
import { shortened, toast } from "./notices.js";
import { order } from "./orders.js";
import { session, shownBalance, takeBalance, takeGeneration, takeRemoved, tell } from "./store.js";
import { clipLength, credits, duration, edgeLine, etaLine, explain, isFinal, moment, moneyLine, statusLine } from "./words.js";

/** Whether hovering may set pictures in motion. */
const motion = matchMedia("(prefers-reduced-motion: no-preference) and (hover: hover)");

/** A card that follows one generation: `update` shows it as it is now, `refresh` only its time. */
export function card(generation, { selectable = null } = {}) {
	const parts = {
		frame: h("div", { class: "frame" }),
		status: h("p", { class: "status" }),
		eta: h("p", { class: "eta" }),
		prompt: h("p", { class: "script" }),
		failure: h("p", { class: "failure" }),
		edge: h("p", { class: "edge" }),
		money: h("p", { class: "money" }),
		bar: h("progress", { max: 100, class: "bar", "aria-label": "Progress" }),
		actions: h("div", { class: "actions" }),
	};
	const element = h(
		"article",
		{ class: "card", data: { id: generation.generation_id } },
		parts.frame,
		h(
			"div",
			{ class: "about" },
			h("div", { class: "line" }, parts.status, parts.eta),
			parts.bar,
			parts.prompt,
			parts.failure,
			h("div", { class: "small" }, parts.edge, parts.money),
			parts.actions,
		),
		selectable && selectBox(generation, selectable),
	);
	const shown = { generation, element, hand: null, look: "", deeds: "" };
	shown.update = (next) => {
		shown.generation = next;
		update(shown, parts);
	};
	shown.refresh = () => setText(parts.eta, etaOf(shown.generation));
	shown.update(generation);
	return shown;
}

function update(shown, parts) {
	const { generation, element } = shown;
	element.dataset.status = generation.status;
	element.setAttribute("aria-label", `${statusLine(generation)}: ${shortened(generation.prompt)}`);
	setText(parts.status, statusLine(generation));
	shown.refresh();
	setText(parts.prompt, generation.prompt);
	setText(parts.failure, generation.status === "FAILED" ? failureOf(generation) : "");
	parts.failure.hidden = generation.status !== "FAILED";
	setText(parts.edge, edgeLine(generation));
	setText(parts.money, moneyLine(generation));
	parts.bar.hidden = isFinal(generation);
	if (generation.progress_percent > 0) parts.bar.value = generation.progress_percent;
	else parts.bar.removeAttribute("value");
	drawFrame(shown, parts.frame);
	drawActions(shown, parts.actions);
}

function etaOf(generation) {
	if (!isFinal(generation)) return etaLine(generation.eta, now_ms());
	const took = generation.status === "COMPLETED" ? `took ${duration(generation)} · ` : "";
	return `${took}${moment(generation.create_time)}`;
}

const failureOf = (generation) => generation.error?.message || "It ended without a video. You were not charged; try again.";

function drawFrame(shown, frame) {
	const { generation } = shown;
	const isThere = generation.status === "COMPLETED" && generation.video_uri;
	const look = isThere ? mediaAddress(generation.thumbnail_uri).split("?")[0] : isFinal(generation) ? "ended" : "leader";
	if (look !== shown.look) {
		shown.look = look;
		if (isThere) drawPoster(shown, frame);
		else if (look === "ended") fill(frame, h("div", { class: "blank" }, icon(generation.status === "FAILED" ? "alert" : generation.status === "COMPLETED" ? "trash" : "stop")));
		else {
			shown.hand = leader();
			fill(frame, shown.hand.element);
		}
	}
	if (look === "leader") turn(shown.hand, generation);
}

/** Lets the film leader say what the status line says. */
function turn(hand, generation) {
	const percent = generation.progress_percent;
	if (generation.start_time && percent > 0) hand.show(String(percent), percent / 100);
	else if (!generation.submit_time && generation.queue_position) hand.show(`#${generation.queue_position}`, null);
	else hand.show("", null);
}

function drawPoster(shown, frame) {
	const { generation } = shown;
	const still = generation.thumbnail_uri
		? h("img", { src: mediaAddress(generation.thumbnail_uri), alt: "", decoding: "async", onload: (event) => frame.classList.toggle("tall", event.target.naturalHeight > event.target.naturalWidth) })
		: h("div", { class: "blank" }, icon("play"));
	const play = h(
		"button",
		{ type: "button", class: "play", "aria-label": `Play: ${shortened(generation.prompt)}`, onclick: () => watch(shown.generation) },
		h("span", { class: "play-mark" }, icon("play")),
	);
	const length = generation.video_seconds ? h("span", { class: "length" }, clipLength(generation.video_seconds)) : null;
	fill(frame, still, play, length);
	let preview = null;
	play.addEventListener("pointerenter", () => {
		if (!motion.matches || preview) return;
		preview = h("video", { src: mediaAddress(shown.generation.video_uri), loop: true, playsinline: true, tabindex: -1, "aria-hidden": "true" });
		preview.muted = true;
		still.after(preview);
		preview.play().catch(() => {});
	});
	play.addEventListener("pointerleave", () => {
		preview?.remove();
		preview = null;
	});
}

function drawActions(shown, place) {
	const { generation } = shown;
	const deeds = deedsOf(generation);
	const look = deeds.map((deed) => deed.label).join();
	if (look === shown.deeds) return;
	const focused = place.contains(document.activeElement);
	shown.deeds = look;
	fill(
		place,
		deeds.map((deed) =>
			h(
				"button",
				{ type: "button", class: deed.isQuiet ? "quiet" : "plain", title: deed.isQuiet ? deed.label : null, onclick: (event) => act(event.currentTarget, deed, shown.generation) },
				icon(deed.icon),
				h("span", { class: deed.isQuiet ? "unseen" : null }, deed.label),
			),
		),
	);
	// The button that was pressed may be gone with what it did; the keyboard stays on the card.
	if (focused) place.querySelector("button")?.focus();
}

function deedsOf(generation) {
	const remix = { label: "Remix", icon: "remix", do: (one) => tell("remix", one) };
	if (!isFinal(generation)) {
		const canCancel = generation.cancel_refund_credits !== null && generation.stage !== "CANCELING";
		return canCancel ? [{ label: "Cancel", icon: "stop", do: cancel }, { ...remix, isQuiet: true }] : [{ ...remix, isQuiet: true }];
	}
	const remove = { label: "Delete", icon: "trash", do: deleteOne, isQuiet: true };
	if (generation.status === "COMPLETED") {
		const save = { label: "Download", icon: "download", do: download };
		return generation.video_uri ? [save, remix, remove] : [remix, remove];
	}
	return [{ label: "Try again", icon: "retry", do: retry }, remix, remove];
}

async function act(pressed, deed, generation) {
	if (pressed.ariaBusy) return;
	pressed.ariaBusy = "true";
	try {
		await deed.do(generation);
	} catch (error) {
		showProblem(error, () => act(pressed, deed, generation));
	} finally {
		pressed.ariaBusy = null;
	}
}

/** Says what went wrong, with a way to try it again where that may help. */
export function showProblem(error, again = null) {
	if (!error.problem) throw error;
	const { status } = error.problem;
	if (status === 401) return;
	const action = error.again
		? () => error.again().catch((next) => showProblem(next))
		: status === 0 || status === 429 || status >= 500
			? again
			: null;
	toast(explain(error.problem), { isBad: true, action: action && { label: "Try again", do: action } });
}

async function cancel(generation) {
	const { cost_credits: cost, cancel_refund_credits: back } = generation;
	const kept = cost - back;
	const refund =
		kept === 0
			? `You get all ${credits(cost)} back.`
			: `You get ${credits(back)} of ${cost} back; ${credits(kept)} are charged for what was already done.`;
	const answer = await ask({
		title: "Cancel this video?",
		lines: [
			`“${shortened(generation.prompt, 120)}”`,
			refund,
			`If the video is finished before the cancel gets there, you keep the video and pay for it: ${credits(cost)}.`,
		],
		answers: [
			{ label: "Keep making it", value: "", isFirst: true },
			{ label: `Cancel it, ${credits(back)} back`, value: "cancel", class: "danger" },
		],
	});
	if (answer !== "cancel") return;
	takeGeneration(await call("POST", `/api/generations/${generation.generation_id}/cancel`));
	await call("GET", "/api/credits").then(takeBalance, () => {});
}

async function retry(generation) {
	// The page may have been open for days.
	session.models = await call("GET", "/api/models");
	const offer = session.models.models.find((one) => one.model === generation.model);
	const price = offer?.resolutions.find((one) => one.resolution === generation.resolution)?.price_credits ?? generation.cost_credits;
	const answer = await ask({
		title: "Try it again?",
		lines: [`“${shortened(generation.prompt, 120)}”`, `It costs ${credits(price)}; you have ${shownBalance()?.available ?? 0}.`],
		answers: [
			{ label: "Not now", value: "" },
			{ label: "With the same seed", value: "same" },
			{ label: `Try again for ${credits(price)}`, value: "new", class: "lamp", isFirst: true },
		],
	});
	if (!answer) return;
	await order(`/api/generations/${generation.generation_id}/retry`, { keep_seed: answer === "same" }, price);
}

async function deleteOne(generation) {
	if (!(await confirmDelete(1, shortened(generation.prompt, 120)))) return;
	await call("DELETE", `/api/generations/${generation.generation_id}`);
	takeRemoved(generation.generation_id);
	toast("Deleted.");
}

/** Asks before something is gone for good. */
export async function confirmDelete(count, name = "") {
	const what = count === 1 ? "this video" : `these ${count} videos`;
	const answer = await ask({
		title: `Delete ${what}?`,
		lines: [name && `“${name}”`, "It goes for good, from every device. The statement keeps its rows; deleting gives no credits back."].filter(Boolean),
		answers: [
			{ label: "Keep", value: "", isFirst: true },
			{ label: "Delete for good", value: "delete", class: "danger" },
		],
	});
	return answer === "delete";
}

function selectBox(generation, selectable) {
	return h(
		"label",
		{ class: "select" },
		h("input", {
			type: "checkbox",
			checked: selectable.has(generation.generation_id),
			onchange: (event) => selectable.set(generation.generation_id, event.target.checked),
		}),
		h("span", { class: "unseen" }, `Select: ${shortened(generation.prompt)}`),
	);
}

/** Empty frames, while the first answer is on its way. */
export const skeletons = (count) =>
	Array.from({ length: count }, () =>
		h("div", { class: "card skeleton", "aria-hidden": "true" }, h("div", { class: "frame" }), h("div", { class: "about" }, h("i"), h("i"), h("i"))),
	);
