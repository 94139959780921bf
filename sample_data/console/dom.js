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

// Tell what has been done, or what went wrong, in the one place for it.
export function say(text, tone = "") {
  $("said").textContent = text;
  $("said").className = tone;
}

// Do something when a button is pressed or a form sent; what is refused is told.
export function when(element, event, action) {
  element.addEventListener(event, async (happening) => {
    if (event === "submit") happening.preventDefault();
    try {
      await action(happening);
    } catch (error) {
      say(error.message, "bad");
    }
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

// Ask before something that changes much; `action` is what the button says that does it.
export function ask(text, action = "Delete") {
  const dialog = $("asking");
  $("asking-text").textContent = text;
  $("asking-yes").textContent = action;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}
