// Shows and saves videos.

import { call, mediaAddress } from "./api.js";
import { button, h } from "./dom.js";
import { toast } from "./notices.js";
import { takeGeneration } from "./store.js";
import { clipLength, duration, edgeLine, moment } from "./words.js";

const STEP_S = 1;
/** Addresses live for an hour; one that is older is asked for anew. */
const ADDRESS_MS_MAX = 45 * 60_000;
const ZIP_BYTES_MAX = 400 * 1024 * 1024;

async function fresh(generation) {
	if (Date.now() - generation.read_ms < ADDRESS_MS_MAX) return generation;
	return takeGeneration(await call("GET", `/api/generations/${generation.generation_id}`)) ?? generation;
}

/** Opens the screening room: space, arrows, f, m and escape do what they do everywhere. */
export async function watch(generation) {
	const shown = await fresh(generation).catch(() => generation);
	const video = h("video", {
		src: mediaAddress(shown.video_uri),
		poster: mediaAddress(shown.thumbnail_uri) || null,
		controls: true,
		loop: true,
		playsinline: true,
		autoplay: true,
		tabindex: 0,
		"aria-label": `Video: ${shown.prompt}`,
	});
	const trouble = h("p", { class: "trouble", hidden: true }, "This video cannot be shown. Its file may have been removed; reload the page to ask again.");
	const dialog = h(
		"dialog",
		{ class: "screening", "aria-label": "Player" },
		h("div", { class: "screen" }, video, trouble),
		h(
			"div",
			{ class: "credits-roll" },
			h("p", { class: "script" }, shown.prompt),
			h("p", { class: "edge" }, `${edgeLine(shown)} · ${clipLength(shown.video_seconds ?? 5)} · made in ${duration(shown)}, ${moment(shown.finish_time)}`),
			h(
				"div",
				{ class: "actions" },
				button("Download", { class: "plain", onclick: () => download(shown) }, "download"),
				h("p", { class: "keys", "aria-hidden": "true" }, ...keys()),
				button("Close", { class: "plain", onclick: () => dialog.close() }, "close"),
			),
		),
	);
	video.addEventListener("error", () => (trouble.hidden = false));
	// Before the browser's own controls hear of it, which would do it once more.
	for (const name of ["keydown", "keyup"]) dialog.addEventListener(name, (event) => handleKey(event, video), true);
	dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
	dialog.addEventListener("close", () => {
		video.pause();
		dialog.remove();
	});
	document.body.append(dialog);
	dialog.showModal();
	video.focus();
}

const keys = () =>
	[["space", "play"], ["← →", "seek"], ["f", "full screen"], ["m", "mute"], ["esc", "close"]].flatMap(([key, word]) => [
		h("kbd", null, key),
		` ${word} `,
	]);

function handleKey(event, video) {
	if (event.ctrlKey || event.metaKey || event.altKey) return;
	const isButton = event.target instanceof HTMLButtonElement;
	const actions = {
		" ": () => (video.paused ? video.play().catch(() => {}) : video.pause()),
		ArrowLeft: () => seek(video, -STEP_S),
		ArrowRight: () => seek(video, STEP_S),
		Home: () => (video.currentTime = 0),
		End: () => (video.currentTime = video.duration || 0),
		m: () => (video.muted = !video.muted),
		f: () => (document.fullscreenElement ? document.exitFullscreen() : video.requestFullscreen?.())?.catch(() => {}),
	};
	const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
	if (!action || (isButton && event.key === " ")) return;
	event.preventDefault();
	event.stopPropagation();
	if (event.type === "keydown") action();
}

function seek(video, by_s) {
	video.currentTime = Math.min(Math.max(video.currentTime + by_s, 0), video.duration || 0);
}

/** Returns a file name that says what is in it. */
export function fileName(generation) {
	const words = generation.prompt.toLowerCase().normalize("NFKD").match(/[\p{L}\p{N}]+/gu) ?? [];
	const name = Array.from(words.slice(0, 8).join("-")).slice(0, 60).join("");
	return `${name || "video"}-${generation.generation_id.slice(-6)}.mp4`;
}

/** Saves one video. */
export async function download(generation) {
	const shown = await fresh(generation).catch(() => generation);
	save(mediaAddress(shown.video_uri), fileName(shown));
}

function save(address, name) {
	const link = h("a", { href: address, download: name });
	document.body.append(link);
	link.click();
	link.remove();
}

/** Saves many videos as one archive; `onProgress` hears how many are read. */
export async function downloadMany(generations, onProgress) {
	const files = [];
	let size = 0;
	for (const generation of generations) {
		const shown = await fresh(generation);
		const response = await fetch(mediaAddress(shown.video_uri));
		if (!response.ok) throw new Error(`a video cannot be read: ${response.status}`);
		const content = new Uint8Array(await response.arrayBuffer());
		size += content.length;
		if (size > ZIP_BYTES_MAX) {
			toast("These are too many for one archive. Choose fewer at a time.", { isBad: true });
			return;
		}
		files.push({ name: fileName(shown), content });
		onProgress(files.length);
	}
	const address = URL.createObjectURL(zip(files));
	save(address, `reelworks-${files.length}-videos.zip`);
	setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Returns an archive that only joins its files: videos are as small as they get. */
function zip(files) {
	const parts = [];
	const directory = [];
	let offset = 0;
	for (const { name, content } of files) {
		const title = new TextEncoder().encode(name);
		const sum = crc32(content);
		// Version 2.0, names in UTF-8, stored; the date is 1 January 1980, which is no date.
		const about = [20, 0x0800, 0, 0, 0x21];
		const sizes = [sum, content.length, content.length];
		const head = record(0x04034b50, about, sizes, [title.length, 0]);
		parts.push(head, title, content);
		directory.push(record(0x02014b50, [20, ...about], sizes, [title.length, 0, 0, 0, 0, 0, 0], [offset]), title);
		offset += head.length + title.length + content.length;
	}
	const length = directory.reduce((sum, part) => sum + part.length, 0);
	const end = record(0x06054b50, [0, 0, files.length, files.length], [length, offset], [0]);
	return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Returns numbers in little-endian order: a signature, then by turns lists of 16 and of 32 bits. */
function record(signature, ...lists) {
	const octets = [];
	const put = (value, size) => {
		for (let place = 0; place < size; place += 1) octets.push(Math.floor(value / 256 ** place) % 256);
	};
	put(signature, 4);
	lists.forEach((list, place) => list.forEach((value) => put(value, place % 2 ? 4 : 2)));
	return new Uint8Array(octets);
}

function crc32(content) {
	let sum = 0xffffffff;
	for (const octet of content) sum = TABLE[(sum ^ octet) & 0xff] ^ (sum >>> 8);
	return (sum ^ 0xffffffff) >>> 0;
}

const TABLE = Array.from({ length: 256 }, (_, value) => {
	for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
	return value >>> 0;
});
