// What every part of the page needs of the document. Text goes in as text, never as HTML.

export const $ = (id) => document.getElementById(id);

// An element with properties (`class`, `text`, `on…`, ARIA and data attributes) and children.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Put new children in, unless they would look the same: focus and selection stay where they are.
export function show(parent, key, makeChildren) {
  if (parent.shownKey === key) return;
  parent.shownKey = key;
  const focused = parent.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  parent.replaceChildren(...makeChildren());
  if (focused) [...parent.querySelectorAll("[aria-label]")].find((it) => it.getAttribute("aria-label") === focused)?.focus();
}

// Tell what happened by itself, in the one place for it.
export function note(text, tone = "") {
  $("said").textContent = $("said").title = text; // of a long one two lines are seen
  $("said").className = tone;
}

// Tell what somebody has done, or what went wrong; `undo` takes it back, until something else is done.
export function say(text, tone = "", undo = null) {
  note(text, tone);
  if (!undo && document.activeElement === $("undo")) $("reset").focus();
  $("undo").hidden = !undo;
  $("undo").onclick = undo && tell(undo);
}

const tell = (action) => async (happening) => {
  try {
    await action(happening);
  } catch (error) {
    say(error.message, "bad");
  }
};

// Do something when a button is pressed or a form sent; what is refused is told.
export function when(element, event, action) {
  const told = tell(action);
  element.addEventListener(event, (happening) => {
    if (event === "submit") happening.preventDefault();
    return told(happening);
  });
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

// A value as JSON in one line, cut where nobody could read it anyway.
export function inShort(value, longest = 400) {
  const text = typeof value === "string" && value.length > longest ? JSON.stringify(value.slice(0, longest)) : JSON.stringify(value);
  return text.length > longest ? `${text.slice(0, longest)} …` : text;
}

// Ask before something that changes much; `yes` is what the button says that does it.
export function ask(text, yes = "Delete", no = "Cancel") {
  const dialog = $("asking");
  $("asking-text").textContent = text;
  [$("asking-yes").textContent, $("asking-no").textContent] = [yes, no];
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue === "yes"); // open: that of the question before, come late
  });
}

export async function copy(name, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain http from another machine there is no clipboard to ask for; then the old way.
    const area = make("textarea", { value: text, class: "hidden" });
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const isCopied = document.execCommand("copy");
    area.remove();
    if (!isCopied) return say("The browser does not let this page copy.", "bad");
  }
  say(`${name} is copied.`, "good");
}
