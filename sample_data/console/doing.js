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

// Let a switch show what is so; of radio buttons one that is chosen unchecks the others.
export function showChecked(element, isChecked) {
  const isChosen = (one) => one === element || (one.type === "radio" && one.name === element.name);
  if (![...underWay].some(isChosen)) element.checked = isChecked;
}
