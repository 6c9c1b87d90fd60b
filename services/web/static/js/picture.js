// The picture that a video starts from: dropped, pasted or chosen, checked, shown and sent.

import { ApiProblem, now_ms, upload } from "./api.js";
import { button, fill, h, icon, showError } from "./dom.js";
import { say } from "./notices.js";
import { bytes, explain } from "./words.js";

const PREVIEW_PIXELS = 360;

/** The field; `changed` is called whenever what it holds, or what it is waiting for, changes. */
export class PictureField {
	constructor(limits, changed) {
		this.limits = limits;
		this.changed = changed;
		this.held = null;
		this.sending = null;
		this.error = h("p", { class: "error", id: "picture-error", hidden: true });
		this.input = h("input", {
			type: "file",
			id: "picture",
			accept: limits.content_types.join(","),
			"aria-describedby": "picture-error picture-hint",
			onchange: () => this.take(this.input.files[0]),
		});
		this.inside = h("div", { class: "drop-inside" });
		this.element = h("div", { class: "field drop" }, this.inside, this.input, this.error);
		// Beside the field too, or the browser leaves the studio for the picture.
		for (const name of ["dragover", "dragleave", "drop"]) document.addEventListener(name, (event) => this.drag(event));
		this.draw();
	}

	drag(event) {
		const { files, types } = event.dataTransfer;
		if (!types.includes("Files")) return;
		event.preventDefault();
		this.element.classList.toggle("over", event.type === "dragover");
		if (event.type === "drop" && this.inside.isConnected) this.take(files[0]);
	}

	get isSending() {
		return this.sending !== null;
	}

	/** Returns its address for the API; "" while there is none. */
	get imageUri() {
		const isGone = this.held?.expire_time && Date.parse(this.held.expire_time) < now_ms();
		return isGone ? "" : (this.held?.image_uri ?? "");
	}

	/** Takes what another video started from, or what a draft remembers. */
	hold(held) {
		this.held = held;
		this.show("");
		this.draw();
	}

	/** Takes a picture from the clipboard, if there is one. */
	paste(event) {
		const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
		if (!file) return;
		event.preventDefault();
		this.take(file);
	}

	async take(file) {
		if (!file) return;
		this.remove();
		this.changed(true);
		const wrong = this.wrongWith(file);
		if (wrong) {
			this.show(wrong);
			return;
		}
		const sending = upload(file, (share) => this.progress(share));
		const held = { name: file.name, size: file.size };
		this.sending = sending;
		this.held = held;
		this.redraw();
		previewOf(file).then((preview) => {
			held.preview = preview;
			if (this.held === held) this.redraw();
		});
		try {
			const { image_uri, expire_time, width_pixels, height_pixels } = await sending.answer;
			if (this.held !== held) return;
			Object.assign(held, { image_uri, expire_time, width_pixels, height_pixels });
			say(`The picture ${file.name} is there.`);
		} catch (error) {
			if (this.held !== held) return;
			if (!(error instanceof ApiProblem)) throw error;
			this.held = null;
			this.show(error.problem.status === 413 ? this.tooLarge(file) : explain(error.problem));
		}
		this.sending = null;
		this.redraw();
	}

	redraw() {
		this.draw();
		this.changed();
	}

	remove() {
		this.sending?.abort();
		this.sending = null;
		this.held = null;
		this.input.value = "";
		this.show("");
		this.redraw();
	}

	wrongWith(file) {
		const { content_types: types, size_bytes_max: most } = this.limits;
		if (!types.includes(file.type)) return `${file.name || "This"} is not a JPEG, PNG or WebP picture.`;
		if (file.size > most) return this.tooLarge(file);
		return file.size === 0 ? `${file.name} is empty.` : "";
	}

	tooLarge(file) {
		const most = this.limits.size_bytes_max;
		return `${file.name} has ${file.size.toLocaleString("en")} bytes; at most ${most.toLocaleString("en")} (${bytes(most)}) can be used.`;
	}

	show(error) {
		showError(this.error, this.input, error);
		if (error) say(error);
	}

	progress(share) {
		const bar = this.inside.querySelector("progress");
		if (bar) bar.value = share;
	}

	draw() {
		this.element.classList.toggle("filled", this.held !== null);
		if (!this.held) {
			fill(
				this.inside,
				icon("image"),
				h("p", null, h("label", { for: "picture", class: "link" }, "Choose a picture"), h("span", { class: "by-mouse" }, ", drop it here or paste it")),
				h("p", { class: "hint", id: "picture-hint" }, `JPEG, PNG or WebP, up to ${bytes(this.limits.size_bytes_max)}`),
			);
			return;
		}
		const { name, size, width_pixels: width, height_pixels: height, preview } = this.held;
		const facts = [size && bytes(size), width && `${width} × ${height}`].filter(Boolean).join(" · ");
		fill(
			this.inside,
			preview ? h("img", { src: objectUrl(preview), alt: `The picture: ${name}`, onload: (event) => URL.revokeObjectURL(event.target.src) }) : h("div", { class: "blank" }, icon("image")),
			h(
				"div",
				{ class: "drop-facts" },
				h("p", null, name),
				this.isSending ? h("progress", { max: 1, value: 0, class: "bar", "aria-label": "Upload" }) : h("p", { class: "hint", id: "picture-hint" }, facts),
				button("Remove", { class: "plain", onclick: () => (this.remove(), this.input.focus()) }, "close"),
			),
		);
	}
}

/** Returns a small copy as text, so that a draft can keep it; "" if this browser cannot read it. */
async function previewOf(file) {
	try {
		const picture = await createImageBitmap(file);
		const scale = Math.min(1, PREVIEW_PIXELS / Math.max(picture.width, picture.height));
		const canvas = h("canvas", { width: Math.max(1, Math.round(picture.width * scale)), height: Math.max(1, Math.round(picture.height * scale)) });
		canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
		picture.close();
		return canvas.toDataURL("image/jpeg", 0.7).split(",")[1];
	} catch {
		return "";
	}
}

/** Returns an address that the content policy allows. */
function objectUrl(text) {
	const octets = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
	return URL.createObjectURL(new Blob([octets], { type: "image/jpeg" }));
}
