// Runs before the first paint, so that a chosen appearance never flashes the other one.
try {
	const chosen = JSON.parse(localStorage.getItem("reelworks.appearance"));
	if (chosen === "dark" || chosen === "light") document.documentElement.dataset.appearance = chosen;
} catch {
	// Storage is switched off: the system's appearance it is.
}
