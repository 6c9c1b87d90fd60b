// Calls the REST API, and nothing else does.

const CALL_MS_MAX = 30_000;
const UPLOAD_MS_MAX = 300_000;

let onSignedOut = () => {};
let clockAhead_ms = 0;

/** An answer that is not what was asked for; `problem` is the API's, or one of the way there. */
export class ApiProblem extends Error {
	constructor(problem) {
		super(problem.detail || problem.title || problem.code);
		this.problem = problem;
	}

	/** Whether nobody knows if it was done: the same key may be sent again, and should be. */
	get isOpen() {
		const { status, code } = this.problem;
		return code === "OFFLINE" || code === "UNREACHABLE" || status >= 500;
	}
}

/** Says what to do when a session turns out to have ended. */
export function whenSignedOut(action) {
	onSignedOut = action;
}

/** The server's clock, which estimates are written by. */
export const now_ms = () => Date.now() + clockAhead_ms;

/** Learns the server's clock from a moment that it just named. */
export function learnClock(iso) {
	const ahead = Date.parse(iso) - Date.now();
	// A header says whole seconds, and answers travel: less than two seconds are no difference.
	if (Number.isFinite(ahead)) clockAhead_ms = Math.abs(ahead) < 2000 ? 0 : ahead;
}

/** Calls the API and returns what it answered; throws ApiProblem. */
export async function call(method, path, body = undefined, headers = {}) {
	const sent = { Accept: "application/json", "X-Reelworks": "1", ...headers };
	if (body !== undefined) sent["Content-Type"] = "application/json";
	let response;
	try {
		response = await fetch(path, {
			method,
			headers: sent,
			body: body === undefined ? undefined : JSON.stringify(body),
			signal: AbortSignal.timeout(CALL_MS_MAX),
			credentials: "same-origin",
			cache: "no-store",
		});
		learnClock(response.headers.get("Date"));
		if (response.ok) return response.status === 204 ? null : await response.json();
	} catch {
		throw unreachable();
	}
	const text = await response.text().catch(() => "");
	throw refused(path, response.status, text, response.headers.get("Retry-After"));
}

/** Sends a picture and returns what the API keeps of it; `onProgress` hears the share that is gone. */
export function upload(file, onProgress) {
	const request = new XMLHttpRequest();
	const form = new FormData();
	form.append("image", file);
	const answer = new Promise((resolve, reject) => {
		request.upload.addEventListener("progress", (event) => {
			if (event.lengthComputable) onProgress(event.loaded / event.total);
		});
		request.addEventListener("load", () => {
			if (request.status === 201) resolve(JSON.parse(request.responseText));
			else reject(refused("/api/uploads", request.status, request.responseText, request.getResponseHeader("Retry-After")));
		});
		for (const name of ["error", "timeout"]) request.addEventListener(name, () => reject(unreachable()));
		request.addEventListener("abort", () => reject(new DOMException("removed", "AbortError")));
	});
	request.open("POST", "/api/uploads");
	request.timeout = UPLOAD_MS_MAX;
	request.setRequestHeader("Accept", "application/json");
	request.setRequestHeader("X-Reelworks", "1");
	request.send(form);
	return { answer, abort: () => request.abort() };
}

/** Returns a new key, where `crypto.randomUUID` is none too: on addresses without https. */
export const newKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

/** Returns the address of a file by which this page can have it, under whatever name it is open. */
export function mediaAddress(uri) {
	if (!uri) return "";
	const address = new URL(uri, location.origin);
	return address.pathname.startsWith("/media/") ? address.pathname + address.search : address.href;
}

function unreachable() {
	return new ApiProblem({ status: 0, code: navigator.onLine ? "UNREACHABLE" : "OFFLINE", title: "No answer" });
}

function refused(path, status, text, retryAfter) {
	let problem = {};
	try {
		problem = JSON.parse(text);
	} catch {
		// A proxy answered in its own words; the status says enough.
	}
	problem = { code: "", detail: "", ...problem, status };
	if (problem.retry_after_s === undefined && Number(retryAfter) > 0) problem.retry_after_s = Number(retryAfter);
	if (status === 401 && !path.startsWith("/api/sign-")) onSignedOut();
	return new ApiProblem(problem);
}
