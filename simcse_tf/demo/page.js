// Links: the address bar says which tab is open and what is in it, so that it can be sent on.
window.simcseLink = (tab, fields) => {
  const query = new URLSearchParams({ tab });
  const theme = new URLSearchParams(location.search).get("__theme");
  if (theme) query.set("__theme", theme);
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  // Servers and proxies refuse longer addresses; then the link opens the tab alone.
  const whole = "?" + query.toString();
  history.replaceState(null, "", whole.length < 8000 ? whole : "?tab=" + tab);
};

// A page opened by such a link presses the tab's button, once the tab is drawn.
window.simcseOpen = () => {
  const query = new URLSearchParams(location.search);
  const tab = query.get("tab");
  query.delete("__theme");
  if (!tab || query.size < 2) return;
  let tries = 50;
  const press = () => {
    const button = document.querySelector(`#${CSS.escape(tab)}-run`);
    if (button && button.offsetParent) button.click();
    else if (tries-- > 0) setTimeout(press, 100);
  };
  setTimeout(press, 300);
};

// Brings into view what a button has begun, where that is below it.
window.simcseShow = (id) => {
  const found = document.getElementById(id);
  if (found && found.getBoundingClientRect().top > innerHeight * 0.5) found.scrollIntoView({ behavior: "smooth" });
};
