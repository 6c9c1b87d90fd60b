// Signing in, and the settings.

import { ApiProblem, call } from "./api.js";
import { choice } from "./composer.js";
import { button, fill, h, kept, leader, setText } from "./dom.js";
import { chime, say, toast } from "./notices.js";
import { session } from "./store.js";
import { exportLink } from "./statement.js";
import { explain, fieldOf, moment } from "./words.js";

/** Returns the view that signs people in; `signedIn` is called with who it is. */
export async function signInView(signedIn, words) {
	const { methods } = await call("GET", "/api/sign-in");
	const error = h("p", { class: "error", id: "sign-in-error", hidden: true });
	const hand = leader();
	hand.show("3", 0.62);
	const forms = methods.map((method) => signInForm(method, error, signedIn));
	const isOpen = methods.includes("name");
	return h(
		"main",
		{ class: "sign-in", id: "view" },
		h("div", { class: "sign-in-art", "aria-hidden": "true" }, hand.element),
		h(
			"div",
			{ class: "sign-in-form" },
			h("p", { class: "wordmark" }, "Reelworks"),
			h("h1", { tabindex: -1 }, "Short films from a few words"),
			h("p", { class: "lead" }, "You pay for a video that you get, and never for one that you do not."),
			words && h("p", { class: "note", role: "note" }, words),
			error,
			forms,
			isOpen && h("p", { class: "hint" }, "A name is enough here. A new one opens an account, with credits to begin with."),
		),
	);
}

function signInForm(method, error, signedIn) {
	const fields = {
		name: [["name", "Your name", { autocomplete: "username", maxlength: 64, autocapitalize: "none", spellcheck: "false" }]],
		password: [
			["email", "E-mail", { type: "email", autocomplete: "username" }],
			["password", "Password", { type: "password", autocomplete: "current-password" }],
		],
		access_token: [["access_token", "Access token", { autocomplete: "off", spellcheck: "false" }]],
	}[method];
	if (!fields) return null;
	const inputs = fields.map(([name, , properties]) => h("input", { id: `sign-in-${name}`, name, required: true, "aria-describedby": "sign-in-error", ...properties }));
	const submit = h("button", { type: "submit", class: "make" }, h("span", null, method === "access_token" ? "Sign in with the token" : "Sign in"));
	const form = h(
		"form",
		{ onsubmit: (event) => (event.preventDefault(), signIn(inputs, submit, error, signedIn)) },
		fields.map(([name, label], place) => h("div", { class: "field" }, h("label", { for: `sign-in-${name}` }, label), inputs[place])),
		submit,
	);
	return method === "access_token" ? h("details", { class: "more" }, h("summary", null, "With an access token"), form) : form;
}

async function signIn(inputs, submit, error, signedIn) {
	if (submit.ariaBusy) return;
	submit.ariaBusy = "true";
	error.hidden = true;
	inputs.forEach((input) => (input.ariaInvalid = null));
	try {
		await signedIn(await call("POST", "/api/sign-in", Object.fromEntries(inputs.map((input) => [input.name, input.type === "password" ? input.value : input.value.trim()]))));
	} catch (failure) {
		if (!(failure instanceof ApiProblem)) throw failure;
		const { problem } = failure;
		setText(error, problem.status === 401 ? "This does not fit. Look at it once more." : explain(problem));
		error.hidden = false;
		const named = inputs.find((input) => problem.errors?.some((one) => fieldOf(one.pointer) === input.name)) ?? inputs[0];
		named.ariaInvalid = "true";
		named.focus();
		say(error.textContent);
	} finally {
		submit.ariaBusy = null;
	}
}

/** The settings. */
export class Settings {
	constructor(signOut) {
		this.title = "Settings";
		this.signOut = signOut;
		this.element = h("div", { class: "settings" });
	}

	show() {
		const { name, email, user_id, session_expire_time: end } = session.me;
		const appearance = choice("appearance", "Appearance", [["system", "As the system"], ["light", "Light"], ["dark", "Dark"]], setAppearance);
		appearance.set(kept.read("appearance") ?? "system");
		fill(
			this.element,
			h("div", { class: "line head" }, h("h1", { tabindex: -1 }, "Settings")),
			section("Profile", "As your sign-in has it; it is changed there.", [
				h("dl", { class: "facts" }, row("Name", name || user_id), email && row("E-mail", email), row("User id", user_id), end && row("Signed in until", moment(end))),
				button("Sign out", { class: "plain", onclick: () => this.signOut() }),
			]),
			section("Appearance", "", [appearance.element]),
			section("When a video is done", "The window’s title and icon always tell.", [this.notifySwitch(), this.soundSwitch()]),
			section("Your credits", "The whole statement, row by row; its changes sum to your balance.", [exportLink()]),
			section("Not part of this version", "Buying credits and keys for programs are not part of this version. Whoever runs the studio can grant credits; programs use the REST API with an access token.", [
				h("a", { class: "link", href: "/docs" }, "The REST API"),
			]),
		);
	}

	notifySwitch() {
		const canNotify = "Notification" in window;
		const isDenied = canNotify && Notification.permission === "denied";
		const input = h("input", { type: "checkbox", role: "switch", disabled: !canNotify || isDenied, checked: canNotify && !isDenied && Boolean(kept.read("notify")) });
		input.addEventListener("change", async () => {
			if (input.checked && (await Notification.requestPermission()) !== "granted") {
				input.checked = false;
				toast("This browser does not allow notifications from here.", { isBad: true });
			}
			kept.write("notify", input.checked);
		});
		const hint = isDenied ? "Forbidden in this browser’s settings for this site." : canNotify ? "While you look at something else." : "This browser has none.";
		return toggle(input, "Notification", hint);
	}

	soundSwitch() {
		const input = h("input", { type: "checkbox", role: "switch", checked: Boolean(kept.read("sound")) });
		input.addEventListener("change", () => {
			kept.write("sound", input.checked);
			if (input.checked) chime();
		});
		return toggle(input, "Sound", "Two soft notes.");
	}
}

const section = (title, hint, children) => h("section", { class: "panel" }, h("div", null, h("h2", null, title), hint && h("p", { class: "hint" }, hint)), h("div", { class: "panel-body" }, children));

const row = (name, value) => h("div", null, h("dt", null, name), h("dd", null, value));

const toggle = (input, label, hint) => h("label", { class: "toggle" }, input, h("span", null, h("b", null, label), h("small", null, hint)));

function setAppearance(appearance) {
	kept.write("appearance", appearance === "system" ? null : appearance);
	if (appearance === "system") delete document.documentElement.dataset.appearance;
	else document.documentElement.dataset.appearance = appearance;
}
