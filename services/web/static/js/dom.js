// Makes elements. Text of others only ever enters as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
	play: "M8 5.2v13.6L19 12Z",
	download: "M12 4v11m-5-4.5 5 5 5-5M5 20h14",
	retry: "M4 12a8 8 0 1 0 2.6-5.9M4 4v4.5h4.5",
	remix: "M4 7h3.5c4.5 0 4.5 10 9 10H20m-3-3 3 3-3 3M4 17h3.5c1.2 0 2.1-.7 2.8-1.7M20 7h-3.5c-1.2 0-2.1.7-2.8 1.7M17 4l3 3-3 3",
	trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12.5h8.4L17 7M10.5 11v5M13.5 11v5",
	close: "M6 6l12 12M18 6 6 18",
	search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Zm4.8-1.7L20 20",
	image: "M4 5h16v14H4ZM4 16l4.5-4.5 4 4L15 13l5 5M15.5 9.5h.01",
	check: "m5 12.5 4.5 4.5L19 7.5",
	alert: "M12 4 2.8 19.5h18.4ZM12 10v4.5M12 17h.01",
	stop: "M6.5 6.5h11v11h-11Z",
	studio: "M4 9.5h16V19H4ZM4 9.5 3.2 6 18.8 3l.7 3.2Z",
	history: "M4 5h7v6H4ZM13 5h7v6h-7ZM4 13h7v6H4ZM13 13h7v6h-7Z",
	statement: "M6 3.5h12v17l-3-2-3 2-3-2-3 2ZM9 8h6M9 12h6",
	settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
};
const FILLED = new Set(["play", "stop"]);

/** Returns an element. Properties that begin with `on` are listeners; `class`, `data` and `aria-…` as named. */
export function h(tag, properties, ...children) {
	const element = document.createElement(tag);
	for (const [name, value] of Object.entries(properties ?? {})) setProperty(element, name, value);
	append(element, children);
	return element;
}

function setProperty(element, name, value) {
	if (value === undefined || value === null || value === false) return;
	if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
	else if (name === "data") Object.assign(element.dataset, value);
	else if (name === "value" || name === "checked") element[name] = value;
	else element.setAttribute(name, value === true ? "" : String(value));
}

function append(element, children) {
	for (const child of children.flat(Infinity)) {
		if (child === null || child === undefined || child === false) continue;
		element.append(child instanceof Node ? child : String(child));
	}
}

/** Returns a drawing that says nothing to those who do not see it. */
export function icon(name) {
	const svg = document.createElementNS(SVG, "svg");
	svg.setAttribute("viewBox", "0 0 24 24");
	svg.setAttribute("aria-hidden", "true");
	svg.setAttribute("class", FILLED.has(name) ? "icon filled" : "icon");
	const path = document.createElementNS(SVG, "path");
	path.setAttribute("d", ICONS[name]);
	svg.append(path);
	return svg;
}

/** Returns the drawing of a film leader: a cross, two circles and a hand that sweeps. */
export function leader() {
	const number = h("span", { class: "leader-number" });
	const element = h(
		"div",
		{ class: "leader", "aria-hidden": "true" },
		h("div", { class: "leader-sweep" }),
		h("div", { class: "leader-circles" }),
		number,
	);
	return {
		element,
		/** Shows a place or a percentage; a `fraction` of null lets the hand go round. */
		show(text, fraction) {
			if (number.textContent !== text) number.textContent = text;
			element.classList.toggle("turning", fraction === null);
			element.style.setProperty("--swept", String(fraction ?? 0));
		},
	};
}

/** Returns a button with a drawing and a word. */
export function button(label, properties = {}, iconName = null) {
	return h("button", { type: "button", ...properties }, iconName && icon(iconName), h("span", null, label));
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
	element.replaceChildren();
	append(element, children);
	return element;
}

/** Sets a text where it differs, so that nothing is drawn or read anew without need. */
export function setText(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

/** Says below a field what is wrong with it; "" says that nothing is. */
export function showError(place, input, text) {
	setText(place, text);
	place.hidden = !text;
	input.ariaInvalid = text ? "true" : null;
}

/** Lets `container` hold exactly the elements, in this order, moving as few as possible. */
export function arrange(container, elements) {
	const wanted = new Set(elements);
	for (const child of [...container.children]) if (!wanted.has(child)) child.remove();
	elements.forEach((element, place) => {
		if (container.children[place] !== element) container.insertBefore(element, container.children[place] ?? null);
	});
}

/** Lets the keyboard stay with what `draw` moves; where that goes, the heading has it. */
export function keepFocus(draw) {
	const focused = document.activeElement;
	draw();
	if (focused === document.activeElement || !focused.closest(".card")) return;
	(focused.isConnected ? focused : document.querySelector("h1")).focus({ preventScroll: true });
}

/** Returns a function that waits until it has not been called for a while. */
export function debounced(action, wait_ms) {
	let timer = 0;
	return (...values) => {
		clearTimeout(timer);
		timer = setTimeout(() => action(...values), wait_ms);
	};
}

/** Opens a question in a dialog; the answer is the value of the button that was pressed, "" for none. */
export function ask({ title, lines, answers }) {
	const id = `question-${Math.random().toString(36).slice(2)}`;
	const dialog = h(
		"dialog",
		{ class: "question", "aria-labelledby": id, "aria-describedby": `${id}-text` },
		h(
			"form",
			{ method: "dialog" },
			h("h2", { id }, title),
			h("div", { id: `${id}-text` }, lines.map((line) => h("p", null, line))),
			h(
				"div",
				{ class: "answers" },
				answers.map((answer) =>
					h("button", { value: answer.value, class: answer.class ?? "plain", autofocus: answer.isFirst }, answer.label),
				),
			),
		),
	);
	document.body.append(dialog);
	return new Promise((resolve) => {
		dialog.addEventListener("close", () => {
			dialog.remove();
			resolve(dialog.returnValue);
		});
		dialog.showModal();
	});
}

/** What the browser keeps for this person; a browser that keeps nothing is no error. */
export const kept = {
	read(key, storage = "localStorage") {
		try {
			return JSON.parse(window[storage].getItem(`reelworks.${key}`));
		} catch {
			return null;
		}
	},
	write(key, value, storage = "localStorage") {
		try {
			if (value === null) window[storage].removeItem(`reelworks.${key}`);
			else window[storage].setItem(`reelworks.${key}`, JSON.stringify(value));
		} catch {
			// Full or switched off: it works, it only is not remembered.
		}
	},
};
