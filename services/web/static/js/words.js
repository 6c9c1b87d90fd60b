// Says in plain words what generations, credits and errors are. Nothing here touches the page.

const STAGES = {
	RESERVING: "Queued · setting the credits aside",
	SUBMITTING: "Queued · being handed to the model",
	CANCELING: "Canceling",
	ARCHIVING: "Saving the video",
	COMMITTING: "Saving the video",
	REFUNDING: "Giving the credits back",
	PARKED: "On hold · somebody has to look at it",
};
const FINAL = new Set(["COMPLETED", "FAILED", "CANCELED"]);
const TRANSACTIONS = {
	PURCHASE: "Credits bought",
	BONUS: "Bonus",
	ADJUSTMENT: "Correction",
	RESERVATION: "Reserved",
	DEDUCTION: "Charged",
	REFUND: "Refunded",
	EXPIRY: "Refunded",
	REIMBURSEMENT: "Given back",
};
const PROBLEMS = {
	GENERATION_ID_REUSED: "This click was already used for something else. Press the button again.",
	ACCOUNT_NOT_FOUND: "You have no account yet. Sign out and in again to open one.",
	CREDITS_UNAVAILABLE: "The ledger cannot be reached just now. Nothing was charged.",
	STORAGE_UNAVAILABLE: "Files cannot be stored just now.",
	SERVICE_OVERLOADED: "The studio is very busy just now.",
	QUOTE_EXPIRED: "The price was held too long. Press the button again.",
	BACKLOG_FULL: "So much is waiting that your video could not be made in time. Nothing was charged.",
	ALREADY_SUCCEEDED: "It was quicker than the cancel: the video is there, and it is yours.",
	GENERATION_ENDED: "It had already ended, so there was nothing left to cancel.",
	GENERATION_UNFINISHED: "It is still being made. Cancel it first, then delete it.",
	NOT_RETRYABLE: "Only what failed or was canceled can be tried again. Use “Remix” for a new take.",
	IMAGE_REMOVED: "The picture it started from is gone. Remix it with the picture once more.",
	MODEL_NOT_FOUND: "This model is not offered any more. Reload the page for those that are.",
};
const STATUSES = {
	401: "Your session has ended. Sign in again; what you wrote is kept.",
	403: "The server did not take this as yours. Reload the page and try again.",
	404: "This is not there any more.",
	409: "It has changed in the meantime. Look again and repeat it if you still want to.",
	413: "This file is too large.",
	415: "This file is not a picture that can be used. Take a JPEG, PNG or WebP.",
	422: "Something in the form cannot be used as it is.",
	503: "The studio cannot do this just now.",
	504: "It took too long, so nobody knows yet whether it was done. Repeating it is safe.",
};

export const isFinal = (generation) => FINAL.has(generation.status);

export const credits = (count) => `${count.toLocaleString("en")} ${Math.abs(count) === 1 ? "credit" : "credits"}`;

/** Where it is: one line that tells our queue from the provider's. */
export function statusLine(generation) {
	switch (generation.status) {
		case "COMPLETED":
			return generation.media_remove_time ? "Done · its video was removed" : "Done";
		case "FAILED":
			return "Failed";
		case "CANCELED":
			return "Canceled";
	}
	if (STAGES[generation.stage]) return STAGES[generation.stage];
	if (generation.start_time) {
		return generation.progress_percent > 0 ? `Running · ${generation.progress_percent} %` : "Running";
	}
	if (generation.submit_time) return "Waiting in the provider’s queue";
	if (generation.queue_position === 1) return "Queued · next in our queue";
	return generation.queue_position ? `Queued · place ${generation.queue_position} in our queue` : "Queued in our queue";
}

/** What became of the credits: one line under every job. */
export function moneyLine(generation) {
	const { cost_credits: cost, charged_credits: charged } = generation;
	if (generation.stage === "REJECTED") return "nothing was reserved, nothing charged";
	if (!isFinal(generation)) {
		return generation.stage === "RESERVING" ? `${credits(cost)} are being reserved` : `${credits(cost)} reserved`;
	}
	if (charged === cost) return `reserved ${cost} → charged ${charged}`;
	if (charged > 0) return `reserved ${cost} → charged ${charged}, refunded ${cost - charged}`;
	return `reserved ${cost} → refunded ${cost}`;
}

/** When it will be there, as a span: half of the like take the first, nine of ten the second. */
export function etaLine(eta, now_ms) {
	if (!eta) return "";
	const likely_s = (Date.parse(eta.likely_time) - now_ms) / 1000;
	const latest_s = (Date.parse(eta.latest_time) - now_ms) / 1000;
	if (latest_s <= 0) return "any moment now";
	if (latest_s < 90) {
		const from = roundedTo(Math.max(likely_s, 0), latest_s < 20 ? 1 : 5);
		const to = Math.max(roundedTo(latest_s, latest_s < 20 ? 1 : 5), 1);
		return from < 2 || from >= to ? `in less than ${to} s` : `about ${from}–${to} s`;
	}
	const from = Math.max(Math.round(likely_s / 60), 0);
	const to = Math.ceil(latest_s / 60);
	if (from < 1) return `in less than ${to} min`;
	return from >= to ? `about ${to} min` : `about ${from}–${to} min`;
}

const roundedTo = (value, step) => Math.round(value / step) * step;

/** How long it took, from create to end. */
export function duration(generation) {
	const took_s = Math.round((Date.parse(generation.finish_time) - Date.parse(generation.create_time)) / 1000);
	return took_s < 90 ? `${took_s} s` : `${Math.round(took_s / 60)} min`;
}

export function clipLength(seconds) {
	return `0:${String(Math.max(1, Math.round(seconds))).padStart(2, "0")}`;
}

const DAY_MS = 86_400_000;

/** A moment, as short as it can be said. */
export function moment(iso, now_ms = Date.now()) {
	const at = new Date(iso);
	const time = at.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" });
	const today = new Date(now_ms).toDateString();
	if (at.toDateString() === today) return `today ${time}`;
	if (at.toDateString() === new Date(now_ms - DAY_MS).toDateString()) return `yesterday ${time}`;
	const isThisYear = at.getFullYear() === new Date(now_ms).getFullYear();
	const day = at.toLocaleDateString([], { day: "numeric", month: "short", year: isThisYear ? undefined : "numeric" });
	return `${day} ${time}`;
}

export const transactionName = (type) => TRANSACTIONS[type] ?? type.toLowerCase();

export const signed = (count) => (count > 0 ? `+${count.toLocaleString("en")}` : count < 0 ? `−${(-count).toLocaleString("en")}` : "0");

export const bytes = (size) =>
	size < 1024 * 1024 ? `${Math.max(1, Math.round(size / 1024))} kB` : `${(size / 1024 / 1024).toFixed(1)} MB`;

/** The model, short: what tells it from the others. */
export const edgeLine = (generation) =>
	[generation.model, generation.resolution, generation.aspect_ratio, generation.seed === null ? "" : `seed ${generation.seed}`]
		.filter(Boolean)
		.join(" · ");

/** Says what went wrong with a call and, where that matters, when to come back. */
export function explain(problem) {
	const again = problem.retry_after_s ? ` Try again in ${credibleWait(problem.retry_after_s)}.` : "";
	if (problem.code === "OFFLINE") return "You are offline. Nothing was done; try again when you are back.";
	if (problem.code === "UNREACHABLE") return "The studio does not answer. Nothing was lost; try again.";
	if (problem.code === "INSUFFICIENT_CREDITS") return shortfall(problem);
	if (problem.code === "TOO_MANY_GENERATIONS") {
		return `You have ${problem.limit ?? "as many"} videos under way, which is the most at a time. Wait for one to end.`;
	}
	if (PROBLEMS[problem.code]) return PROBLEMS[problem.code] + again;
	if (problem.status === 422) return fieldSentence(problem) ?? STATUSES[422];
	if (problem.status === 429) return `That was a lot at once.${again || " Wait a moment and try again."}`;
	if (STATUSES[problem.status]) return STATUSES[problem.status] + again;
	const trace = problem.trace_id ? ` If it stays, quote ${problem.trace_id}.` : "";
	return `Something is wrong at our end; it was not your doing.${again || " Try again."}${trace}`;
}

/** Says exactly how many credits are missing. */
export function shortfall({ required, available, shortfall: missing }) {
	if (required === undefined) return "You have too few credits for this. Nothing was charged.";
	const short = missing ?? required - available;
	return `${credits(Number(short))} short: it costs ${required}, and you have ${available}. Nothing was charged.`;
}

function credibleWait(seconds) {
	const whole = Math.max(1, Math.ceil(seconds));
	return whole < 90 ? `${whole} s` : `${Math.ceil(whole / 60)} min`;
}

const FIELDS = {
	prompt: "The prompt",
	negative_prompt: "What to leave out",
	aspect_ratio: "The shape",
	seed: "The seed",
	image_uri: "The picture",
	image: "The picture",
	model: "The model",
	resolution: "The resolution",
	name: "The name",
	email: "The e-mail address",
	password: "The password",
	access_token: "The token",
};

/** Returns the field that a pointer such as `/prompt` names. */
export const fieldOf = (pointer) => String(pointer ?? "").replace(/^[#/]+(body\/)?/, "").split("/")[0];

function fieldSentence(problem) {
	const first = problem.errors?.[0];
	if (!first) return problem.detail || null;
	const name = FIELDS[fieldOf(first.pointer)];
	return name ? `${name}: ${first.detail}` : first.detail;
}
