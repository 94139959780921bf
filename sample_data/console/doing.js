// An action of a button or a form, followed by a look at what it changed.

import { when } from "./dom.js";
import { refreshAnew, settle } from "./state.js";

// Controls whose action is under way: they show what was chosen, not what the emulator said before.
const underWay = new Set();

export function doing(element, event, action) {
  when(element, event, async (happening) => {
    underWay.add(element);
    try {
      await action(happening);
    } finally {
      await refreshAnew().finally(() => underWay.delete(element));
      settle();
    }
  });
}

// Let a switch show what is so.
export function showChecked(element, isChecked) {
  if (!underWay.has(element)) element.checked = isChecked;
}
